defmodule NetRunner.Stream.Borrowed do
  @moduledoc false
  # The stdout of a command in the hands of the process that consumes it: bytes come by system call and
  # select message, with no other process between. The descriptor stays the server's: it closes with
  # the server, and so it cannot outlive the command.
  #
  # The server tells the borrower when the command has exited and everything it started is gone: nobody is
  # left who could write then, unless a process outside of the command's tree was given the pipe, and that
  # is not waited for.

  alias NetRunner.Process.{Counters, Native, Pipe}

  @enforce_keys [:server, :pipe, :fd, :counters]
  defstruct [:server, :pipe, :fd, :counters]

  @type t :: %__MODULE__{
          server: pid(),
          pipe: Pipe.t(),
          fd: Native.fd(),
          counters: Counters.t()
        }

  @doc "Borrows it, where there is one, and nobody waits for its bytes."
  @spec borrow(pid()) :: t() | nil
  def borrow(server) when node(server) == node() do
    case GenServer.call(server, :lend_stdout, :infinity) do
      {:ok, pipe, counters} ->
        %__MODULE__{server: server, pipe: pipe, fd: pipe.fd, counters: counters}

      :no ->
        nil
    end
  catch
    # What the reads say then.
    :exit, _ -> nil
  end

  def borrow(_elsewhere), do: nil

  @doc "As `NetRunner.Process.read/2`."
  @spec read(t(), pos_integer()) :: {{:ok, binary()} | :eof | {:error, atom()}, t()}
  def read(%__MODULE__{} = borrowed, max_bytes) do
    case Pipe.read(borrowed.pipe, max_bytes) do
      {{:ok, bytes} = result, pipe} ->
        Counters.add_read(borrowed.counters, :stdout, byte_size(bytes))
        {result, %{borrowed | pipe: pipe}}

      {{:error, :eagain}, pipe} ->
        wait(%{borrowed | pipe: pipe}, max_bytes)

      {result, pipe} ->
        {result, %{borrowed | pipe: pipe}}
    end
  end

  # Whoever enumerates waits, which may be another process each time.
  defp wait(%{fd: fd} = borrowed, max_bytes) do
    monitor = Process.monitor(borrowed.server)

    receive do
      {:select, ^fd, _, :ready_input} ->
        Process.demonitor(monitor, [:flush])
        read(borrowed, max_bytes)

      {__MODULE__, :exited, ^fd} ->
        Process.demonitor(monitor, [:flush])
        read_rest(borrowed, max_bytes)

      {:DOWN, ^monitor, _, _, _} ->
        {{:error, :closed}, borrowed}
    end
  end

  defp read_rest(borrowed, max_bytes) do
    case Pipe.read(borrowed.pipe, max_bytes) do
      {{:ok, bytes} = result, pipe} ->
        Counters.add_read(borrowed.counters, :stdout, byte_size(bytes))
        # There may be more, and nobody who tells.
        tell(self(), borrowed.fd)
        {result, %{borrowed | pipe: pipe}}

      {_eof_or_nothing, pipe} ->
        {:eof, %{borrowed | pipe: Pipe.close(pipe)}}
    end
  end

  @doc "Called by the server, for the process that borrowed."
  @spec tell(pid(), Native.fd()) :: :ok
  def tell(borrower, fd) do
    send(borrower, {__MODULE__, :exited, fd})
    :ok
  end

  @doc "Takes out of the mailbox what is no message for anybody else. The server is gone."
  @spec return(t() | nil) :: :ok
  def return(nil), do: :ok

  def return(%__MODULE__{fd: fd} = borrowed) do
    receive do
      {:select, ^fd, _, _} -> return(borrowed)
      {__MODULE__, :exited, ^fd} -> return(borrowed)
    after
      0 -> :ok
    end
  end
end
