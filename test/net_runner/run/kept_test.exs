defmodule NetRunner.Run.KeptTest do
  # What is kept, against a model that has all the bytes.
  use ExUnit.Case, async: true

  alias NetRunner.Run.Kept

  @nothing %{keep: nil, interleave: false, max_output_size: :infinity}

  defp fields(pieces, options) do
    options = Map.merge(@nothing, Map.new(options))

    kept =
      Enum.reduce(pieces, Kept.new(options), fn {s, bytes}, kept -> Kept.add(kept, s, bytes) end)

    {Kept.fields(kept), kept.exceeded}
  end

  defp pieces do
    for _ <- 1..:rand.uniform(20) do
      {Enum.random([:stdout, :stderr]), :crypto.strong_rand_bytes(:rand.uniform(9) - 1)}
    end
  end

  defp all(pieces, stream), do: for({^stream, bytes} <- pieces, into: "", do: bytes)

  test "the ends of each stream are those of all that came" do
    NetRunner.Random.rounds(500, fn _ ->
      pieces = pieces()
      {head, tail} = {:rand.uniform(15) - 1, :rand.uniform(15) - 1}
      {fields, nil} = fields(pieces, keep: {head, tail})

      for stream <- [:stdout, :stderr] do
        all = all(pieces, stream)
        size = byte_size(all)

        expected =
          if size <= head + tail,
            do: all,
            else: binary_part(all, 0, head) <> binary_part(all, size, -tail)

        assert fields[stream] == expected
        assert fields.dropped[stream] == size - byte_size(expected)
      end
    end)
  end

  test "limits keep the beginning, and say which was passed first" do
    NetRunner.Random.rounds(500, fn _ ->
      pieces = pieces()

      limits =
        for name <- [:stdout, :stderr, :total], do: {name, Enum.random([0, 3, 20, :infinity])}

      {fields, exceeded} = fields(pieces, max_output_size: limits)
      {interleaved, ^exceeded} = fields(pieces, max_output_size: limits, interleave: true)

      for stream <- [:stdout, :stderr] do
        assert String.starts_with?(all(pieces, stream), fields[stream])

        assert byte_size(fields[stream]) + fields.dropped[stream] ==
                 byte_size(all(pieces, stream))

        assert all(interleaved.output, stream) == fields[stream]
      end

      dropped = fields.dropped.stdout + fields.dropped.stderr
      assert exceeded == nil == (dropped == 0)

      if exceeded in [:stdout, :stderr],
        do: assert(byte_size(fields[exceeded]) == limits[exceeded])

      # Neighbours are joined, and none is empty.
      streams = Enum.map(interleaved.output, &elem(&1, 0))
      assert Enum.dedup(streams) == streams
      refute Enum.any?(interleaved.output, &match?({_, ""}, &1))
    end)
  end

  test "the end of a stream takes memory for what is kept, in however small pieces it comes" do
    options = Map.merge(@nothing, %{keep: {:tail, 1_000}})
    byte = "x"

    kept =
      Enum.reduce(1..500_000, Kept.new(options), fn _, kept -> Kept.add(kept, :stdout, byte) end)

    {:ends, _, %{stdout: {_, tail, 500_000}}} = kept.store
    assert byte_size(tail) < 70_000
    assert byte_size(Kept.fields(kept).stdout) == 1_000
  end

  test "a short piece of a large chunk keeps none of it alive" do
    chunk = String.duplicate("x", 1_000_000)

    for options <- [[keep: {3, 3}], [max_output_size: 3], [max_output_size: 3, interleave: true]] do
      {fields, _} = fields([{:stdout, chunk}], options)
      kept = fields.stdout || hd(fields.output) |> elem(1)
      assert :binary.referenced_byte_size(kept) < 10_000
    end
  end
end
