defmodule NetRunner.Top do
  @moduledoc false
  # `NetRunner.top/0`: the commands that run, as a table that is drawn anew every second.
  #
  # Its life: a process of its own draws, and the caller waits for a line of input, which ends both. The table is drawn over
  # the one before, below what was on the terminal, and nothing about the terminal is changed: whatever ends the caller,
  # the last table stays there and there is nothing to put back.

  alias NetRunner.Process.Listing
  alias NetRunner.Terminal
  alias NetRunner.Top.{Table, Usage}

  @every_ms 1_000
  # Of lines that go into a file or a pipe.
  @columns 120

  @spec run() :: :ok
  def run do
    if Terminal.size(),
      do: live(),
      else: nil |> Table.lines(sample(:infinity), @columns, :infinity) |> Enum.each(&IO.puts/1)
  end

  defp live do
    caller = self()
    drawer = spawn(fn -> draw(Process.monitor(caller), nil, 0) end)
    # Also at the end of the input, or when it cannot be read.
    _line = IO.gets("")
    monitor = Process.monitor(drawer)
    send(drawer, :over)
    receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
  end

  # `height`: the lines of the last table, above the cursor.
  defp draw(caller, earlier, height) do
    with {columns, rows} <- Terminal.size() do
      now = sample(rows)
      lines = Table.lines(earlier, now, columns, rows) ++ ["Press Enter to leave."]
      up = if height > 0, do: "\e[#{height}A", else: ""
      IO.write([up, "\r\e[J" | Enum.map(lines, &[&1, "\n"])])

      receive do
        :over -> :ok
        {:DOWN, ^caller, _, _, _} -> :ok
      after
        @every_ms -> draw(caller, now, length(lines))
      end
    end
  end

  # There may be thousands: only for those that are shown, /proc is read.
  defp sample(rows) do
    room = Table.room(rows)

    %{
      at: DateTime.utc_now(),
      ms: System.monotonic_time(:millisecond),
      commands:
        for {entry, index} <- Enum.with_index(Listing.list()) do
          # In the order of terms, `:infinity` comes after all numbers.
          {entry, if(index < room, do: Usage.of(entry.os_pid))}
        end
    }
  end
end
