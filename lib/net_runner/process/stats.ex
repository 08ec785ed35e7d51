defmodule NetRunner.Process.Stats do
  @moduledoc """
  What is counted for a command; `NetRunner.Process.stats/1` returns it.

    * `bytes_in`, `bytes_out`, `bytes_err`: bytes written to stdin, read from stdout and stderr;
    * `read_count`, `write_count`: calls of `read(2)` and `write(2)` that moved bytes;
    * `started_at`: `DateTime` in UTC;
    * `duration_ms`: milliseconds from the start to the exit, or until now;
    * `exit_status`: 0 to 255, 128 + number for a signal; `nil` before the exit;

  and, after the exit, the kernel's own account (wait4(2), getrusage(2)), which includes the
  children that the command has waited for:

    * `exit`: `{:exited, code}` or `{:signaled, name_or_number, core_dumped?}`;
    * `max_rss_bytes`, `user_time_us`, `system_time_us`.
  """

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
            system_time_us: nil

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
          system_time_us: non_neg_integer() | nil
        }
end
