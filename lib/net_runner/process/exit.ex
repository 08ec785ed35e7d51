defmodule NetRunner.Process.Exit do
  @moduledoc false
  # How a command exited, as its shepherd has said, and when the server received that.

  alias NetRunner.Signal

  @enforce_keys [:how, :usage, :at]
  defstruct [:how, :usage, :at, :cgroup]

  # `at`: `System.monotonic_time/0`. `cgroup`: what the kernel counted for the command's cgroup.
  @type t :: %__MODULE__{
          how: {:exited, 0..255} | {:signaled, pos_integer(), boolean()},
          usage:
            {max_rss_bytes :: non_neg_integer(), user_us :: non_neg_integer(),
             system_us :: non_neg_integer()},
          at: integer(),
          cgroup: %{atom() => non_neg_integer()} | nil
        }

  @doc "The status as a shell gives it: the exit code, or 128 + the number of the signal."
  @spec status(t()) :: 0..255
  def status(%__MODULE__{how: {:exited, code}}), do: code
  def status(%__MODULE__{how: {:signaled, number, _core?}}), do: 128 + number

  @sigkill 9

  @doc """
  Whether the kernel killed it because its memory limit was reached, as far as that can be known: SIGKILL ended it, and the kernel
  has killed a process of its cgroup for that reason.
  """
  @spec oom_killed?(t()) :: boolean()
  def oom_killed?(%__MODULE__{how: {:signaled, @sigkill, _}, cgroup: %{memory_oom_kills: kills}}),
    do: kills > 0

  def oom_killed?(_exit), do: false

  @doc "How it exited, with the name of the signal if it has one."
  @spec named(t()) :: {:exited, 0..255} | {:signaled, atom() | pos_integer(), boolean()}
  def named(%__MODULE__{how: {:exited, _} = how}), do: how

  def named(%__MODULE__{how: {:signaled, number, core?}}) do
    case Signal.name(number) do
      {:ok, name} -> {:signaled, name, core?}
      {:error, :unknown_signal} -> {:signaled, number, core?}
    end
  end
end
