defmodule NetRunner.Process.Stats do
  @moduledoc """
  What has been counted for a command, from its start to its exit, or until now. `NetRunner.Process.stats/1` returns it, and a
  `NetRunner.Result` has it.

    * `bytes_in`, `bytes_out`, `bytes_err`: bytes written to stdin, and bytes read from stdout and stderr. What the command has printed and
      nobody has read is not counted;
    * `read_count`, `write_count`: calls of `read(2)` and `write(2)` that moved bytes;
    * `started_at`: a `DateTime` in UTC;
    * `duration_ms`: milliseconds from the start to the exit, or until now;
    * `exit_status`: 0 to 255; for a signal, 128 + its number; `nil` before the exit;
    * `sandbox`: the layers of the `:sandbox` that are in force, such as `[:filesystem, :network, :signals, :system_calls, :capabilities]`;
      `nil` without one.

  After the exit there are the kernel's own figures (wait4(2)), which include those children that the command has waited for:

    * `exit`: `{:exited, code}` or `{:signaled, name_or_number, core_dumped?}`;
    * `max_rss_bytes`: the most memory that the command, or one of its children, had in use at any time;
    * `user_time_us`, `system_time_us`: microseconds of CPU time in the program and in the kernel.

  With `:cgroup_path`, `cgroup` is a map of what the kernel has counted for all processes of the command. Which figures there are depends on
  the controllers of the cgroup:

    * `memory_current_bytes`, `memory_peak_bytes`, `memory_swap_peak_bytes`, `pids_current`, `pids_peak`;
    * `cpu_usage_us`, `cpu_user_us`, `cpu_system_us`, `cpu_throttled_count`, `cpu_throttled_us`;
    * from `memory.events`, how often something happened: `memory_low_events`, `memory_high_events`, `memory_max_events`,
      `memory_oom_events` (the limit was reached, and an allocation was about to fail), `memory_oom_kills` (processes that were killed
      because of that), `memory_oom_group_kills`. `docs/cgroups.md` explains them.

  `cgroup` is `nil` for a cgroup that was joined (`cgroup: [join: path]`), because it counts other processes too. If NetRunner's helper
  process for the command was killed, nobody knows how the command ended, and the kernel's figures stay `nil`.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "kill -TERM $$"])
      iex> NetRunner.Process.await_exit(p)
      {:ok, 143}
      iex> %{exit: {:signaled, :sigterm, false}, max_rss_bytes: bytes} = NetRunner.Process.stats(p)
      iex> bytes > 100_000
      true
  """
  @moduledoc since: "0.1.0"

  defstruct bytes_in: 0,
            bytes_out: 0,
            bytes_err: 0,
            read_count: 0,
            write_count: 0,
            started_at: nil,
            duration_ms: 0,
            exit_status: nil,
            exit: nil,
            max_rss_bytes: nil,
            user_time_us: nil,
            system_time_us: nil,
            cgroup: nil,
            sandbox: nil

  @type t :: %__MODULE__{
          bytes_in: non_neg_integer(),
          bytes_out: non_neg_integer(),
          bytes_err: non_neg_integer(),
          read_count: non_neg_integer(),
          write_count: non_neg_integer(),
          started_at: DateTime.t(),
          duration_ms: non_neg_integer(),
          exit_status: 0..255 | nil,
          exit: {:exited, 0..255} | {:signaled, atom() | pos_integer(), boolean()} | nil,
          max_rss_bytes: non_neg_integer() | nil,
          user_time_us: non_neg_integer() | nil,
          system_time_us: non_neg_integer() | nil,
          cgroup: %{atom() => non_neg_integer()} | nil,
          sandbox: [NetRunner.Sandbox.in_force()] | nil
        }

  @doc false
  @spec started_at(integer()) :: DateTime.t()
  def started_at(system_time) do
    system_time
    |> System.convert_time_unit(:native, :microsecond)
    |> DateTime.from_unix!(:microsecond)
  end
end

defimpl Inspect, for: NetRunner.Process.Stats do
  def inspect(stats, _options) do
    parts = [
      ending(stats),
      "#{stats.duration_ms} ms",
      "in #{stats.bytes_in}, out #{stats.bytes_out}, err #{stats.bytes_err} bytes",
      "#{stats.read_count} reads, #{stats.write_count} writes",
      usage(stats),
      cgroup(stats.cgroup),
      sandbox(stats.sandbox)
    ]

    "#NetRunner.Process.Stats<#{parts |> Enum.reject(&is_nil/1) |> Enum.join(", ")}>"
  end

  defp ending(%{exit: nil}), do: "no exit"
  defp ending(%{exit: {:exited, code}}), do: "exited with #{code}"
  defp ending(%{exit: {:signaled, signal, _}}), do: "ended by #{signal}"

  defp usage(%{max_rss_bytes: nil}), do: nil

  defp usage(stats) do
    "max_rss #{stats.max_rss_bytes} bytes, user #{stats.user_time_us} us, system #{stats.system_time_us} us"
  end

  defp sandbox(nil), do: nil
  defp sandbox(layers), do: "sandbox: " <> Enum.join(layers, " ")

  defp cgroup(nil), do: nil

  defp cgroup(figures),
    do: "cgroup: " <> Enum.map_join(figures, " ", fn {k, v} -> "#{k}=#{v}" end)
end
