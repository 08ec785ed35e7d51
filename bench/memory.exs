defmodule Bench.Memory do
  # The picture in the README: the VM's memory over time while a consumer takes what `yes` prints at a fixed rate,
  # by a port and by NetRunner.

  @seconds 5
  # Bytes per second that the consumer takes.
  @rate 50_000_000
  # Bytes that the VM may grow by; what makes it grow more is stopped.
  @limit 2_000_000_000
  @sample_ms 20

  @type point :: {seconds :: float(), bytes :: non_neg_integer()}
  @type series :: %{name: String.t(), class: String.t(), points: [point()], note: String.t()}

  def rate, do: @rate

  @doc "The VM's memory while a consumer in a process of its own takes what `start` has it read, and whether it passed the limit."
  @spec sample(start :: fun()) :: {[point()], stopped? :: boolean()}
  def sample(start) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    # Samples must come in time also while the schedulers are flooded.
    Process.flag(:priority, :high)
    began = now()
    {consumer, monitor} = spawn_monitor(fn -> consume(start.(), now(), 0) end)
    result = watch(began, :erlang.memory(:total), [])
    Process.exit(consumer, :kill)
    receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
    Process.flag(:priority, :normal)
    result
  end

  defp consume(read, began, taken) do
    taken = taken + byte_size(read.())
    ahead = div(taken * 1_000, @rate) - (now() - began)
    if ahead > 0, do: Process.sleep(ahead)
    consume(read, began, taken)
  end

  defp watch(began, before, points) do
    memory = :erlang.memory(:total)
    seconds = (now() - began) / 1_000
    points = [{seconds, memory} | points]

    cond do
      memory - before > @limit ->
        {Enum.reverse(points), true}

      seconds >= @seconds ->
        {Enum.reverse(points), false}

      true ->
        Process.sleep(@sample_ms)
        watch(began, before, points)
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  # --- the picture ------------------------------------------------------------------------------------

  @width 720
  @height 330
  @left 76
  @right 20
  @top 64
  @bottom 78

  # It brings its own background, so that it can be read wherever it is shown.
  @style """
  text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328 }
  .background { fill: #ffffff } .grid { stroke: #d0d7de } .title { font-size: 16px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 12px }
  path { fill: none; stroke-width: 2.5; stroke-linejoin: round }
  path.port { stroke: #bc4c00 } path.ours { stroke: #0969da }
  text.port { fill: #bc4c00; font-weight: 600 } text.ours { fill: #0969da; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .background { fill: #0d1117 } .grid { stroke: #30363d } .quiet { fill: #9198a1 }
    path.port { stroke: #f0883e } path.ours { stroke: #58a6ff }
    text.port { fill: #f0883e } text.ours { fill: #58a6ff }
  }
  """

  @doc "All series in one picture, as SVG. A label stands at the end of its line."
  @spec svg([series()], String.t()) :: iodata()
  def svg(all, machine) do
    highest = all |> Enum.flat_map(& &1.points) |> Enum.map(&elem(&1, 1)) |> Enum.max()
    top = ceil(highest / 500_000_000) * 500_000_000

    [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{@height}" width="#{@width}" height="#{@height}" role="img">\n),
      "<title>Memory of the VM over time: #{Enum.map_join(all, "; ", &"#{&1.name}, #{&1.note}")}</title>\n",
      "<style>\n#{@style}</style>\n",
      ~s(<rect class="background" width="#{@width}" height="#{@height}" rx="6"/>\n),
      text(@left, 28, "A fast program and a slow consumer: memory of the VM", "title"),
      text(
        @left,
        48,
        "yes(1) prints as fast as it can; the consumer takes #{div(@rate, 1_000_000)} MB per second",
        "quiet"
      ),
      for(bytes <- 0..top//500_000_000, do: horizontal(bytes, top)),
      for(second <- 0..@seconds, do: text(x(second), y(0, top) + 20, second, nil, "middle")),
      text(x(@seconds / 2), y(0, top) + 40, "seconds", "quiet", "middle"),
      for(series <- all, do: line(series, top)),
      text(@left, @height - 14, machine, "quiet"),
      "</svg>\n"
    ]
  end

  defp horizontal(bytes, top) do
    y = y(bytes, top)

    [
      ~s(<line class="grid" x1="#{@left}" y1="#{y}" x2="#{@width - @right}" y2="#{y}"/>\n),
      text(@left - 8, y + 4, gigabytes(bytes), nil, "end")
    ]
  end

  defp line(%{points: points} = series, top) do
    path = Enum.map_join(points, " L", fn {second, bytes} -> "#{x(second)},#{y(bytes, top)}" end)
    {second, bytes} = List.last(points)
    label = "#{series.name}: #{series.note}"

    [
      ~s(<path class="#{series.class}" d="M#{path}"/>\n),
      # Beside a line that ends early, above one that goes on.
      if(second < @seconds / 2,
        do: text(x(second) + 10, y(bytes, top) + 14, label, series.class),
        else: text(x(@seconds), y(bytes, top) - 10, label, series.class, "end")
      )
    ]
  end

  defp text(x, y, text, class, anchor \\ "start") do
    class = if class, do: ~s( class="#{class}"), else: ""
    ~s(<text#{class} x="#{x}" y="#{y}" text-anchor="#{anchor}">#{text}</text>\n)
  end

  defp x(second), do: round(10 * (@left + second / @seconds * (@width - @left - @right))) / 10

  defp y(bytes, top),
    do: round(10 * (@height - @bottom - bytes / top * (@height - @top - @bottom))) / 10

  defp gigabytes(bytes), do: "#{:erlang.float_to_binary(bytes / 1.0e9, decimals: 1)} GB"
end
