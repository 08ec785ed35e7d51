defmodule NetRunner.FiguresTest do
  use ExUnit.Case, async: true

  alias NetRunner.Figures

  doctest NetRunner.Figures
  doctest NetRunner.Text

  test "bytes never take more than nine characters" do
    for power <- 0..14, offset <- [-1, 0, 1] do
      bytes = trunc(:math.pow(10, power)) + offset
      assert String.length(Figures.bytes(bytes)) <= 9
      refute Figures.bytes(bytes) =~ "1000."
    end
  end

  test "a text that may be wide is cut as if it were" do
    assert Figures.cut("日本語", 6) == "日本語"
    assert Figures.cut("日本語", 5) == "日本…"
    assert Figures.cut("日本語", 1) == "…"
    assert Figures.cut("abc", 3) == "abc"
  end

  test "no control character of Unicode is left" do
    for code <- Enum.concat([0..31, 127..159]),
        do: assert(Figures.harmless(<<code::utf8>>) == "?")

    assert Figures.harmless("é ~") == "é ~"
  end
end
