defmodule NetRunner.Run.LinesTest do
  # The line splitter against a model that has the whole text at once.
  use ExUnit.Case, async: true

  alias NetRunner.Run.Lines

  for newlines <- [:keep, :trim] do
    test "random texts, cut anywhere, give the lines of the whole (#{newlines})" do
      NetRunner.Random.rounds(400, fn _ ->
        text = text()
        chunks = cut(text)
        assert split(chunks, unquote(newlines)) == lines(text, unquote(newlines)), inspect(chunks)
      end)
    end
  end

  for newlines <- [:keep, :trim], separator <- [<<0>>, "ab", "\r\n\r\n", "aa"] do
    test "so they do where #{inspect(separator)} ends them (#{newlines})" do
      kind = {unquote(newlines), unquote(separator)}

      NetRunner.Random.rounds(200, fn _ ->
        text = text_of(unquote(separator))
        chunks = cut(text)
        assert split(chunks, kind) == lines(text, kind), inspect(chunks)
      end)
    end
  end

  test "a separator is found wherever it is cut, and half of one is none" do
    text = "one--two-three---four-"

    for size <- 1..byte_size(text) do
      chunks = for <<byte <- text>>, do: <<byte>>
      chunks = chunks |> Enum.chunk_every(size) |> Enum.map(&Enum.join/1)
      assert split(chunks, {:trim, "--"}) == ["one", "two-three", "-four-"]
      assert split(chunks, {:keep, "--"}) == ["one--", "two-three--", "-four-"]
    end

    long = String.duplicate("x", 200_000)
    assert split([long, long, <<0>>, long], {:trim, <<0>>}) == [long <> long, long]
    assert split([String.duplicate(<<0>>, 10_000)], {:trim, <<0>>}) == List.duplicate("", 10_000)
  end

  test "more lines than are taken at once come, in order, and one piece of a line in between" do
    text = for n <- 1..10_000, into: "", do: "#{n}\n"
    assert split(["0", text, "end"], :trim) == ["01" | Enum.map(2..10_000, &"#{&1}")] ++ ["end"]
    assert split([String.duplicate("\n", 100_000)], :trim) == List.duplicate("", 100_000)
  end

  test "a line is a binary of its own size, however it was cut" do
    assert split(["a", "", "b\r", "\nc\r\r", "\n", "\r", "\n\r"], :trim) ==
             ["ab", "c\r", "", "\r"]

    assert split(["a", "", "b\r", "\nc\r\r", "\n", "\r", "\n\r"], :keep) ==
             ["ab\r\n", "c\r\r\n", "\r\n", "\r"]

    assert split([], :trim) == []
    assert split(["", ""], :keep) == []
  end

  # What is asked of it, in the order in which a stream does.
  defp split(chunks, newlines) do
    {whole, lines} =
      Enum.flat_map_reduce(chunks, Lines.new(newlines), fn chunk, lines ->
        lines |> Lines.add(chunk) |> drain([])
      end)

    whole ++ Lines.last(lines)
  end

  defp drain(lines, batches) do
    case Lines.next(lines) do
      {[], lines} -> {batches |> Enum.reverse() |> Enum.concat(), lines}
      {batch, lines} -> drain(lines, [batch | batches])
    end
  end

  defp text_of(separator) do
    Enum.map_join(0..:rand.uniform(30), fn _ ->
      Enum.random([separator, separator, "a", "b", "\r", "\r\n", "", "x"])
    end)
  end

  defp lines(text, {newlines, separator}) do
    {whole, [last]} = text |> :binary.split(separator, [:global]) |> Enum.split(-1)
    kept = if newlines == :keep, do: separator, else: ""
    Enum.map(whole, &(&1 <> kept)) ++ if(last == "", do: [], else: [last])
  end

  defp lines(text, newlines) do
    {whole, [last]} = text |> String.split("\n") |> Enum.split(-1)
    Enum.map(whole, &line(&1, newlines)) ++ if(last == "", do: [], else: [last])
  end

  defp line(line, :keep), do: line <> "\n"

  defp line(line, :trim) do
    if String.ends_with?(line, "\r"),
      do: binary_part(line, 0, byte_size(line) - 1),
      else: line
  end

  # Mostly newlines and what is easily mistaken for a part of one, any other bytes, and now and then a long piece.
  defp text do
    for _ <- 1..:rand.uniform(80), into: "" do
      case :rand.uniform(12) do
        n when n <= 3 -> "\n"
        n when n <= 5 -> "\r"
        n when n <= 7 -> "\r\n"
        n when n <= 10 -> :rand.bytes(:rand.uniform(4))
        11 -> "é"
        12 -> String.duplicate("x", :rand.uniform(5_000))
      end
    end
  end

  defp cut(""), do: []

  defp cut(text) do
    size =
      min(Enum.random([0, 1, 1, 2, 3, :rand.uniform(20), :rand.uniform(6_000)]), byte_size(text))

    {chunk, rest} = :erlang.split_binary(text, size)
    [chunk | cut(rest)]
  end
end
