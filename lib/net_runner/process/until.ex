defmodule NetRunner.Process.Until do
  @moduledoc false
  # Reads until a pattern matches. The server reads, and keeps what it has read; the caller is shown it, matches, and says
  # how much of it is taken. So the server runs no pattern, and a caller that dies takes nothing along.

  alias NetRunner.Process.{Client, Pattern}

  @spec read(GenServer.server(), Pattern.t(), pos_integer(), timeout()) ::
          {:ok, {binary(), binary()}} | :eof | {:error, term()}
  def read(process, pattern, max_bytes, timeout) do
    with {:ok, holder, bytes} <- Client.call(process, {:hold, max_bytes, timeout}),
         do: look(process, holder, pattern, max_bytes, bytes, 0)
  end

  defp look(process, holder, pattern, max_bytes, bytes, seen) do
    case find(process, holder, pattern, bytes, seen) do
      {start, length} ->
        {before, rest} = :erlang.split_binary(bytes, start)
        match = :binary.part(rest, 0, length)
        with :ok <- take(process, holder, start + length), do: {:ok, {before, match}}

      nil when byte_size(bytes) >= max_bytes ->
        with :ok <- take(process, holder, 0), do: {:error, :too_long}

      nil ->
        seen = byte_size(bytes)

        with {:ok, ^holder, more} <- Client.call(process, {:look_on, holder, seen}),
             do: look(process, holder, pattern, max_bytes, bytes <> more, seen)
    end
  end

  # What comes with the pattern may raise.
  defp find(process, holder, pattern, bytes, seen) do
    Pattern.find(pattern, bytes, seen)
  catch
    kind, reason ->
      take(process, holder, 0)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp take(process, holder, size), do: Client.call(process, {:take_seen, holder, size})
end
