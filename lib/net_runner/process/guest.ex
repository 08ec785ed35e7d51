defmodule NetRunner.Process.Guest do
  @moduledoc false
  # A caller that reads stdout, or writes to stdin, by itself: while nobody waits for the same, and something can be
  # done at once, its command's server need not be asked. Otherwise it is turned away, and asks the server, as it does
  # where guests are not invited. Race: turned away, and not received.
  #
  # The descriptors stay the server's: they close with it, and so cannot outlive the command.

  alias NetRunner.Process.{Client, Counters}
  alias NetRunner.Registry
  alias NetRunner.System.Native

  # Of a process that calls.
  @last :"$net_runner_guest"

  # The descriptor counts modulo 2^31.
  @modulus 0x80000000

  @enforce_keys [:stdin, :stdout, :counters]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          stdin: Native.fd() | nil,
          stdout: Native.fd() | nil,
          counters: Counters.t()
        }

  @doc "Lets callers find the descriptors of the calling process's command. The registry forgets them with the process."
  @spec register(t()) :: :ok
  def register(guest) do
    # Race: stopped application. The server is linked to the registry, and will hear of it.
    _ = Registry.put({:guest, self()}, guest)
    :ok
  end

  @doc """
  What the calling process finds of a command. It remembers that of the last one, as a lookup takes about as long as a small
  write.
  """
  @spec of(GenServer.server()) :: t() | nil
  def of(server) when is_pid(server) and node(server) == node() do
    case Process.get(@last) do
      {^server, guest} -> guest
      _another -> look_up(server)
    end
  end

  def of(_name_or_elsewhere), do: nil

  defp look_up(server) do
    case Registry.get({:guest, server}) do
      [guest] ->
        Process.put(@last, {server, guest})
        guest

      [] ->
        nil
    end
  end

  @doc """
  For the server, when nobody waits any more: lets guests in. Not while it has messages, as somebody may have called before
  who is no guest. It tries again after the next call.
  """
  @spec let_in(Native.fd(), received :: non_neg_integer()) :: :ok
  def let_in(fd, received) do
    case Process.info(self(), :message_queue_len) do
      {:message_queue_len, 0} -> Native.let_guests_in(fd, received)
      _somebody -> :ok
    end
  end

  @doc "One more, as the descriptor counts who was turned away."
  @spec count(non_neg_integer()) :: non_neg_integer()
  def count(received), do: rem(received + 1, @modulus)

  @doc "As `NetRunner.Process.write/3`."
  @spec write(t() | nil, GenServer.server(), [binary()], timeout()) :: :ok | {:error, term()}
  def write(guest, server, iovec, timeout) do
    case try_write(guest, iovec) do
      :ok -> :ok
      asks -> ask(server, asks, {:write, iovec, timeout})
    end
  end

  @doc "As `NetRunner.Process.read/3`."
  @spec read(t() | nil, GenServer.server(), pos_integer(), timeout()) ::
          {:ok, binary()} | :eof | {:error, term()}
  def read(guest, server, max_bytes, timeout) do
    case try_read(guest, max_bytes) do
      {:ok, _bytes} = read -> read
      asks -> ask(server, asks, {:read, :stdout, max_bytes, timeout})
    end
  end

  # The server counts who was turned away.
  defp ask(server, :uninvited, request), do: Client.call(server, request)
  defp ask(server, :turned_away, request), do: Client.call(server, {:turned_away, request})

  defp try_write(%__MODULE__{stdin: stdin}, iovec) when stdin != nil do
    case Native.try_write(stdin, iovec) do
      :ok -> :ok
      # Nobody looks at that door any more.
      {:error, :closed} -> :uninvited
      {:error, _not_now_or_not_here} -> :turned_away
    end
  end

  defp try_write(_guest, _iovec), do: :uninvited

  defp try_read(%__MODULE__{stdout: stdout, counters: counters}, max_bytes) when stdout != nil do
    case Native.try_read(stdout, max_bytes) do
      {:ok, bytes} ->
        # The server may have begun to discard before these were read; looked at before, that could be missed.
        if Counters.discarding?(counters), do: :uninvited, else: {:ok, bytes}

      {:error, :closed} ->
        :uninvited

      _nothing_or_the_end ->
        :turned_away
    end
  end

  defp try_read(_guest, _max_bytes), do: :uninvited
end
