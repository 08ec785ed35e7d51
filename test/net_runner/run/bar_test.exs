defmodule NetRunner.Run.BarTest do
  use ExUnit.Case, async: true

  alias NetRunner.Run.Bar

  defp bar(size, seen, executable \\ "/usr/bin/gzip") do
    Enum.reduce(seen, Bar.new(executable, size), fn {ms, bytes_in, bytes_out}, bar ->
      Bar.add(bar, ms, bytes_in, bytes_out)
    end)
  end

  test "where the size is known: a bar, the percentage, and the time left" do
    bar = bar(40_000_000, [{1_000, 5_000_000, 1_000_000}, {2_000, 10_000_000, 2_000_000}])

    assert Bar.line(bar, 200) ==
             "gzip  [#######.......................]  25%  in 10.0 MB, 5.0 MB/s  out 2.0 MB, 1.0 MB/s  0:06 left"
  end

  test "where it is not: the bytes, the rates, and the time since the start" do
    assert Bar.line(bar(nil, [{2_000, 10_000, 500}]), 200) ==
             "gzip  in 10.0 kB, 5.0 kB/s  out 500 B, 250 B/s  0:02"

    assert Bar.line(bar(nil, [{2_000, 0, 500}]), 200) == "gzip  out 500 B, 250 B/s  0:02"
    assert Bar.line(bar(nil, [{2_000, 9, 0}]), 200) == "gzip  in 9 B, 4 B/s  0:02"
    assert Bar.line(bar(nil, []), 200) == "gzip  out 0 B, 0 B/s  0:00"
    # A file may be empty, or be one of /proc.
    assert Bar.line(bar(0, [{2_000, 0, 500}]), 200) == "gzip  out 500 B, 250 B/s  0:02"
  end

  test "a rate is that of the last seconds, and a stalled input has no time left" do
    fast = for second <- 1..10, do: {second * 1_000, second * 1_000_000, 0}
    assert Bar.line(bar(100_000_000, fast), 200) =~ "10%  in 10.0 MB, 1.0 MB/s  1:30 left"
    stalled = for second <- 11..20, do: {second * 1_000, 10_000_000, 0}
    assert Bar.line(bar(100_000_000, fast ++ stalled), 200) =~ "in 10.0 MB, 0 B/s  0:20"
    late = [{100_000, 20_000_000, 0}]
    assert Bar.line(bar(100_000_000, fast ++ stalled ++ late), 200) =~ "in 20.0 MB, 125.0 kB/s"
  end

  test "more than the size, and all of it, are 100 percent" do
    for bytes <- [1_000, 2_000] do
      assert Bar.line(bar(1_000, [{1_000, bytes, 0}]), 200) =~
               "[##############################] 100%"

      assert Bar.line(bar(1_000, [{1_000, bytes, 0}]), 200) =~ ~r|/s  0:01$|
    end
  end

  test "the line always fits, and is ASCII" do
    for name <- ["gzip", "日本\e[2J", String.duplicate("long", 20)],
        size <- [nil, 1_000, 10_000_000_000],
        seen <- [[], [{1, 1, 1}], [{500, 999_999_999, 5}, {400_000, 9_999_999_999, 999_999}]],
        columns <- [1, 2, 10, 40, 80, 300] do
      line = Bar.line(bar(size, seen, "/bin/" <> name), columns)
      assert String.length(line) < columns
      assert line =~ ~r/\A[ -~]*\z/
    end
  end
end
