defmodule NetRunner.Result do
  @moduledoc """
  What `NetRunner.capture/2` returns when a command is over: how it ended, what it printed, and what it used.

      iex> {:ok, result} = NetRunner.capture(["sh", "-c", "echo out; echo bad >&2; exit 3"])
      iex> {result.outcome, result.status, result.stdout, result.stderr}
      {:ended, 3, "out\\n", "bad\\n"}

  Fields:

    * `command` (`[executable | args]`), `os_pid`, `started_at` (a `DateTime` in UTC), `duration_ms` (from the start to
      the exit);
    * `outcome`: the first reason that NetRunner acted on, see below;
    * `status`: the exit status; for a signal, 128 + its number. `exit`: `{:exited, code}` or
      `{:signaled, name_or_number, core_dumped?}`. Both say how the command really ended, also after a timeout: a command that exits with 0
      when it is asked to end has `status: 0`. Both are `nil` if nobody knows;
    * `stdout`, `stderr`: what was kept of each; `""` for a stream that does not come to the VM. With `stderr: :consume`, `stderr` is only
      the end of it;
    * `output`: with `interleave: true`, in place of these two (which are then `nil`), `[{:stdout, bytes}, {:stderr, bytes}, …]` in the order
      in which NetRunner read them. The order is approximate, because two pipes have no common order; with `stderr: :redirect` both
      streams are one pipe, and the order is exact;
    * `dropped`: `%{stdout: bytes, stderr: bytes}`, the numbers of bytes that a limit or `:keep` left out;
    * `stats`: a `NetRunner.Process.Stats`, which has the figures of the cgroup too.

  | outcome | |
  |---|---|
  | `:ended` | the command ended without NetRunner: it exited, or a signal from elsewhere ended it |
  | `:timeout`, `:idle_timeout` | it was ended because this time had passed |
  | `{:output_limit, :stdout \\| :stderr \\| :total}` | it printed more than `:max_output_size` allows |
  | `:cancelled` | `NetRunner.cancel/1` was called, its `:owner` died, or its process was stopped |
  | `:oom_killed` | the command itself was killed by SIGKILL, and the kernel has killed a process in its own cgroup (`:cgroup_path`) because of the memory limit |
  | `:not_ended` | SIGKILL did not end it within `:give_up_after` |
  | `{:input_failed, exception}` | its `:input` could not be produced. A thrown value or an exit is wrapped in a `NetRunner.Error` |
  | `:shepherd_died` | NetRunner's helper process for the command was killed, and the command with it |
  | `:node_lost` | the connection to its `:node` was lost, which ends the command there |

  `inspect/1` gives a few lines, which show neither the output nor the environment nor the input.
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.Error
  alias NetRunner.Options.Kind
  alias NetRunner.Process.Stats

  @enforce_keys [
    :command,
    :os_pid,
    :started_at,
    :duration_ms,
    :outcome,
    :status,
    :exit,
    :stdout,
    :stderr,
    :output,
    :dropped,
    :stats
  ]
  defstruct @enforce_keys

  @type outcome ::
          :ended
          | :timeout
          | :idle_timeout
          | {:output_limit, :stdout | :stderr | :total}
          | :cancelled
          | :oom_killed
          | :not_ended
          | {:input_failed, Exception.t()}
          | :shepherd_died
          | :node_lost

  @type t :: %__MODULE__{
          command: [String.t()],
          os_pid: pos_integer() | nil,
          started_at: DateTime.t(),
          duration_ms: non_neg_integer(),
          outcome: outcome(),
          status: 0..255 | nil,
          exit: {:exited, 0..255} | {:signaled, atom() | pos_integer(), boolean()} | nil,
          stdout: binary() | nil,
          stderr: binary() | nil,
          output: [{:stdout | :stderr, binary()}] | nil,
          dropped: %{stdout: non_neg_integer(), stderr: non_neg_integer()},
          stats: Stats.t()
        }

  @doc """
  Returns whether the command ended by itself, with status 0.

      iex> {:ok, result} = NetRunner.capture(~w(true))
      iex> NetRunner.Result.ok?(result)
      true
      iex> {:ok, result} = NetRunner.capture(~w(sleep 100), timeout: 1_000)
      iex> NetRunner.Result.ok?(result)
      false
  """
  @spec ok?(t()) :: boolean()
  def ok?(%__MODULE__{outcome: :ended, status: 0}), do: true
  def ok?(%__MODULE__{}), do: false
  def ok?(other), do: no_result!(other)

  @doc """
  Returns the result if `ok?/1` is true. Otherwise raises `NetRunner.Error`, with the status and the last 8 KiB of stdout and of stderr.

      iex> {:ok, result} = NetRunner.capture(["sh", "-c", "echo bad >&2; exit 3"])
      iex> NetRunner.Result.ok!(result)
      ** (NetRunner.Error) `sh -c 'echo bad >&2; exit 3'` exited with status 3; the end of its stderr: bad
  """
  @spec ok!(t()) :: t()
  def ok!(%__MODULE__{} = result) do
    if ok?(result), do: result, else: raise(error(result))
  end

  def ok!(other), do: no_result!(other)

  # The error of a function clause would show the output.
  @spec no_result!(term()) :: no_return()
  defp no_result!({:ok, %__MODULE__{}}) do
    raise ArgumentError,
          "a result must be a NetRunner.Result, got: {:ok, result}; match it before: {:ok, result} = ..."
  end

  defp no_result!(other) do
    raise ArgumentError, "a result must be a NetRunner.Result, got: #{Kind.of(other)}"
  end

  @doc false
  @spec error(t()) :: Error.t()
  def error(%__MODULE__{} = result) do
    %Error{
      reason: reason(result),
      command: result.command,
      status: result.status,
      exit: result.exit,
      stdout: Error.tail(of(result, :stdout)),
      stderr: Error.tail(of(result, :stderr)),
      stderr_dropped: result.dropped.stderr
    }
  end

  defp reason(%{outcome: :ended}), do: :exit_status
  defp reason(%{outcome: :not_ended, os_pid: os_pid}), do: {:not_ended, os_pid}
  defp reason(%{outcome: :node_lost}), do: {:node, :disconnected}
  defp reason(%{outcome: outcome}), do: outcome

  defp of(%{output: nil} = result, stream), do: Map.fetch!(result, stream)

  defp of(%{output: output}, stream) do
    for {^stream, bytes} <- output, into: "", do: bytes
  end
end

defimpl Inspect, for: NetRunner.Result do
  alias NetRunner.Error

  def inspect(result, _options) do
    command = Error.command_line(result.command)
    pid = if result.os_pid, do: " (PID #{result.os_pid})", else: ""

    """
    #NetRunner.Result<#{command}#{pid}
      #{outcome(result.outcome)}, #{ending(result)}, after #{result.duration_ms} ms
      #{output(result)}>\
    """
  end

  # An exception may hold some of the input.
  defp outcome({:input_failed, %module{}}), do: "outcome: {:input_failed, %#{inspect(module)}{…}}"
  defp outcome(outcome), do: "outcome: #{inspect(outcome)}"

  defp ending(%{status: nil}), do: "status not known"
  defp ending(%{exit: {:exited, code}}), do: "exited with #{code}"
  defp ending(%{exit: {:signaled, signal, _}} = result), do: "#{signal} (status #{result.status})"

  defp output(%{output: nil} = result) do
    "stdout: #{size(result.stdout, result.dropped.stdout)}, stderr: #{size(result.stderr, result.dropped.stderr)}"
  end

  defp output(%{output: pieces} = result) do
    size = pieces |> Enum.map(fn {_, bytes} -> byte_size(bytes) end) |> Enum.sum()
    dropped = result.dropped.stdout + result.dropped.stderr
    "output: #{size}#{dropped(dropped)} bytes in #{length(pieces)} pieces"
  end

  defp size(bytes, dropped), do: "#{byte_size(bytes)}#{dropped(dropped)} bytes"

  defp dropped(0), do: ""
  defp dropped(bytes), do: " (+ #{bytes} dropped)"
end
