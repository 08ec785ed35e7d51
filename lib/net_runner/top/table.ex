defmodule NetRunner.Top.Table do
  @moduledoc false
  # What `NetRunner.top/0` shows, from two looks at the commands: pure data.

  alias NetRunner.{Error, Figures}
  alias NetRunner.Process.Listing
  alias NetRunner.Top.Usage

  @columns [
    {"PID", 8, :leading},
    {"TIME", 9, :leading},
    {"CPU", 6, :leading},
    {"MEMORY", 9, :leading},
    {"IN", 9, :leading},
    {"OUT", 9, :leading},
    {"STATE", 8, :trailing},
    {"COMMAND", 0, :trailing}
  ]
  # The head, the line below the table, one that says how to leave, and one for what is typed.
  @beside 4

  # `ms`: of a clock that does not jump.
  @type sample :: %{
          at: DateTime.t(),
          ms: integer(),
          commands: [{Listing.t(), Usage.t() | nil}]
        }

  @doc """
  The table, in lines of at most `columns`, for a terminal of so many `rows`. The CPU time of a command is that since the
  earlier sample, or since its start where that does not have it.
  """
  @spec lines(sample() | nil, sample(), pos_integer(), pos_integer() | :infinity) :: [String.t()]
  def lines(earlier, now, columns, rows) do
    {shown, hidden} = split(now.commands, room(rows))
    count = length(now.commands)

    [
      row(for({name, _, _} <- @columns, do: name), columns)
      | Enum.map(shown, &command(&1, earlier, now, columns))
    ] ++
      [Figures.cut(footer(count, length(hidden)), columns)]
  end

  @doc "How many commands fit on a terminal of so many rows."
  @spec room(pos_integer() | :infinity) :: pos_integer() | :infinity
  def room(:infinity), do: :infinity
  def room(rows), do: max(1, rows - @beside)

  defp split(commands, :infinity), do: {commands, []}
  defp split(commands, room), do: Enum.split(commands, room)

  defp footer(0, _hidden), do: "No command is running."
  defp footer(1, _hidden), do: "1 command is running."
  defp footer(count, 0), do: "#{count} commands are running."
  defp footer(count, hidden), do: "#{count} commands are running; #{hidden} do not fit."

  defp command({entry, usage}, earlier, now, columns) do
    %{in: input, out: out, err: err} = entry.bytes
    age = max(1, DateTime.diff(now.at, entry.started_at, :millisecond))

    row(
      [
        "#{entry.os_pid}",
        Figures.clock(age),
        cpu(usage, before(earlier, entry), now.ms, age),
        if(usage, do: Figures.bytes(usage.memory), else: "-"),
        Figures.bytes(input),
        Figures.bytes(out + err),
        if(usage, do: usage.state, else: "-"),
        entry.command |> Error.command_line() |> Figures.harmless()
      ],
      columns
    )
  end

  # When it was seen before, and what it had used.
  defp before(nil, _entry), do: nil

  defp before(earlier, entry) do
    Enum.find_value(earlier.commands, fn {other, usage} ->
      if other.pid == entry.pid and usage != nil, do: {earlier.ms, usage.cpu_ms}
    end)
  end

  defp cpu(nil, _before, _ms, _age), do: "-"
  defp cpu(usage, nil, _ms, age), do: percent(usage.cpu_ms, age)
  # What has ended meanwhile may have taken its time along.
  defp cpu(usage, {then, cpu_ms}, ms, _age), do: percent(max(0, usage.cpu_ms - cpu_ms), ms - then)

  defp percent(cpu_ms, ms), do: "#{round(100 * cpu_ms / max(1, ms))}%"

  defp row(cells, columns) do
    cells
    |> Enum.zip_with(@columns, &pad/2)
    |> Enum.join(" ")
    |> Figures.cut(columns)
  end

  defp pad(cell, {_, width, :leading}), do: String.pad_leading(cell, width)
  defp pad(cell, {_, width, :trailing}), do: String.pad_trailing(cell, width)
end
