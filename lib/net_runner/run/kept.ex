defmodule NetRunner.Run.Kept do
  @moduledoc false
  # What is kept of a command's output, as pure data: everything up to limits, or the ends of each stream. It takes
  # no more memory than a small multiple of what is kept, whatever the command prints.

  @typedoc """
  `{:apart, …}`: all of each stream. `{:interleaved, …}`: the pieces of both, the last one first. `{:ends, …}`: of
  each stream its first bytes, its last bytes (and more, until they are cut) and the number of all.
  """
  @type store ::
          {:apart, %{stdout: binary(), stderr: binary()}}
          | {:interleaved, [{stream(), binary()}]}
          | {:ends, {head :: non_neg_integer(), tail :: non_neg_integer()},
             %{stdout: ends(), stderr: ends()}}

  @type ends :: {head :: binary(), tail :: binary(), size :: non_neg_integer()}
  @type stream :: :stdout | :stderr
  @type limit :: non_neg_integer() | :infinity

  # `left`: what the limits still allow. `exceeded`: the first of them that was passed.
  @enforce_keys [:store, :left]
  defstruct [:store, :left, exceeded: nil, dropped: %{stdout: 0, stderr: 0}]

  @type t :: %__MODULE__{
          store: store(),
          left: %{stdout: limit(), stderr: limit(), total: limit()},
          exceeded: stream() | :total | nil,
          dropped: %{stdout: non_neg_integer(), stderr: non_neg_integer()}
        }

  # The end of a stream is cut when so much more than it has come.
  @slack 65_536

  @doc "By the options `:keep`, `:interleave` and `:max_output_size`."
  @spec new(map()) :: t()
  def new(options), do: %__MODULE__{store: store(options), left: limits(options.max_output_size)}

  defp store(%{keep: nil, interleave: false}), do: {:apart, %{stdout: "", stderr: ""}}
  defp store(%{keep: nil, interleave: true}), do: {:interleaved, []}
  defp store(%{keep: {:head, size}}), do: store(%{keep: {size, 0}})
  defp store(%{keep: {:tail, size}}), do: store(%{keep: {0, size}})

  defp store(%{keep: {head, tail}}),
    do: {:ends, {head, tail}, %{stdout: {"", "", 0}, stderr: {"", "", 0}}}

  defp limits(limits) when is_list(limits) do
    Map.merge(%{stdout: :infinity, stderr: :infinity, total: :infinity}, Map.new(limits))
  end

  defp limits(total), do: limits(total: total)

  @doc "Takes bytes of a stream: keeps of them what is to be kept, and counts the rest."
  @spec add(t(), stream(), binary()) :: t()
  def add(%__MODULE__{store: {:ends, sizes, streams}} = kept, stream, bytes) do
    ends = add_ends(streams[stream], sizes, bytes)
    %{kept | store: {:ends, sizes, %{streams | stream => ends}}}
  end

  def add(%__MODULE__{left: left} = kept, stream, bytes) do
    size = byte_size(bytes)
    # In the order of terms, `:infinity` comes after all numbers.
    fits = size |> min(left[stream]) |> min(left.total)

    %{
      kept
      | store: put(kept.store, stream, binary_part(bytes, 0, fits)),
        left: %{left | stream => less(left[stream], fits), total: less(left.total, fits)},
        exceeded: kept.exceeded || if(fits < size, do: first_limit(left, stream)),
        dropped: Map.update!(kept.dropped, stream, &(&1 + size - fits))
    }
  end

  defp first_limit(left, stream) do
    # As both are atoms or numbers, they can be compared; where both are the same, the stream's own is named.
    if left[stream] <= left.total, do: stream, else: :total
  end

  defp less(:infinity, _size), do: :infinity
  defp less(left, size), do: left - size

  defp put(store, _stream, ""), do: store

  # Appending to the same binary copies only what is appended.
  defp put({:apart, streams}, stream, bytes),
    do: {:apart, Map.update!(streams, stream, &(&1 <> bytes))}

  defp put({:interleaved, [{stream, piece} | pieces]}, stream, bytes),
    do: {:interleaved, [{stream, piece <> bytes} | pieces]}

  # A copy, so that a few bytes do not keep a large chunk alive.
  defp put({:interleaved, pieces}, stream, bytes),
    do: {:interleaved, [{stream, :binary.copy(bytes)} | pieces]}

  defp add_ends({head, tail, size}, {head_size, tail_size}, bytes) do
    first = min(byte_size(bytes), head_size - byte_size(head))
    {beginning, rest} = :erlang.split_binary(bytes, first)
    {head <> beginning, add_tail(tail, rest, tail_size), size + byte_size(bytes)}
  end

  defp add_tail(_tail, _bytes, 0), do: ""

  defp add_tail(_tail, bytes, size) when byte_size(bytes) >= size,
    do: :binary.copy(last(bytes, size))

  # Cut now and then: each time, it would be copied for each piece.
  defp add_tail(tail, bytes, size) do
    tail = tail <> bytes
    if byte_size(tail) > 2 * size + @slack, do: :binary.copy(last(tail, size)), else: tail
  end

  defp last(bytes, size) do
    size = min(byte_size(bytes), size)
    binary_part(bytes, byte_size(bytes), -size)
  end

  @doc "Takes the end, of so many bytes, of a stderr that the command's server has read."
  @spec put_consumed(t(), binary(), non_neg_integer()) :: t()
  def put_consumed(%__MODULE__{store: {:apart, streams}} = kept, tail, size) do
    dropped = %{kept.dropped | stderr: size - byte_size(tail)}
    %{kept | store: {:apart, %{streams | stderr: tail}}, dropped: dropped}
  end

  # The beginning of a consumed stderr is not known. So when only the beginning was asked for, this is the end all the same.
  def put_consumed(%__MODULE__{store: {:ends, {_head, 0} = sizes, streams}} = kept, tail, size),
    do: %{kept | store: {:ends, sizes, %{streams | stderr: {tail, "", size}}}}

  def put_consumed(%__MODULE__{store: {:ends, sizes, streams}} = kept, tail, size),
    do: %{kept | store: {:ends, sizes, %{streams | stderr: {"", tail, size}}}}

  @doc "What was kept: as fields of a `NetRunner.Result`."
  @spec fields(t()) :: %{
          stdout: binary() | nil,
          stderr: binary() | nil,
          output: [{stream(), binary()}] | nil,
          dropped: %{stdout: non_neg_integer(), stderr: non_neg_integer()}
        }
  def fields(%__MODULE__{store: {:apart, streams}} = kept) do
    Map.merge(streams, %{output: nil, dropped: kept.dropped})
  end

  def fields(%__MODULE__{store: {:interleaved, pieces}} = kept) do
    %{stdout: nil, stderr: nil, output: Enum.reverse(pieces), dropped: kept.dropped}
  end

  def fields(%__MODULE__{store: {:ends, {_, tail_size}, streams}}) do
    %{stdout: {stdout, out_dropped}, stderr: {stderr, err_dropped}} =
      Map.new(streams, fn {stream, {head, tail, size}} ->
        bytes = head <> last(tail, tail_size)
        {stream, {bytes, size - byte_size(bytes)}}
      end)

    %{
      stdout: stdout,
      stderr: stderr,
      output: nil,
      dropped: %{stdout: out_dropped, stderr: err_dropped}
    }
  end
end
