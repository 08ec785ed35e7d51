defmodule NetRunner.Process.Exit do
  @moduledoc false
  # How a command ended, as its shepherd reported it, and when that was heard.

  alias NetRunner.Signal

  @enforce_keys [:how, :usage, :at]
  defstruct [:how, :usage, :at, :cgroup]

  # `at`: `System.monotonic_time/0`. `cgroup`: what was counted there.
  @type t :: %__MODULE__{
          how: {:exited, 0..255} | {:signaled, pos_integer(), boolean()},
          usage:
            {max_rss_bytes :: non_neg_integer(), user_us :: non_neg_integer(),
             system_us :: non_neg_integer()},
          at: integer(),
          cgroup: %{atom() => non_neg_integer()} | nil
        }

  @doc "As a shell gives it: 128 + the number of a signal."
  @spec status(t()) :: 0..255
  def status(%__MODULE__{how: {:exited, code}}), do: code
  def status(%__MODULE__{how: {:signaled, number, _core?}}), do: 128 + number

  @sigkill 9

  @doc """
  Whether the kernel has killed it for want of memory, as far as that can be told: it was killed by SIGKILL, and of its
  cgroup a process was killed so.
  """
  @spec oom_killed?(t()) :: boolean()
  def oom_killed?(%__MODULE__{how: {:signaled, @sigkill, _}, cgroup: %{memory_oom_kills: kills}}),
    do: kills > 0

  def oom_killed?(_exit), do: false

  @doc "How it ended, the signal by its name where it has one."
  @spec named(t()) :: {:exited, 0..255} | {:signaled, atom() | pos_integer(), boolean()}
  def named(%__MODULE__{how: {:exited, _} = how}), do: how

  def named(%__MODULE__{how: {:signaled, number, core?}}) do
    case Signal.name(number) do
      {:ok, name} -> {:signaled, name, core?}
      {:error, :unknown_signal} -> {:signaled, number, core?}
    end
  end
end
