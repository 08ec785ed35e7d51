defmodule NetRunner.Run.Borrowed do
  @moduledoc false
  # The stdout of a command in the hands of the process that consumes it: bytes come by system call and
  # select message, with no other process between. The descriptor stays the server's: it closes with
  # the server, and so it cannot outlive the command.
  #
  # When the command has exited and everything it started is gone, nobody is left who could write, unless a
  # process outside of the command's tree was given the pipe, and that is not waited for. Whoever waits looks
  # for that now and then: it is rare, and a message would have to find the process that waits.

  alias NetRunner.Process.{Counters, Pipe}
  alias NetRunner.System.Native

  @look_after 1_000

  @enforce_keys [:server, :pipe, :fd, :counters, :to_the_exit?]
  defstruct [:server, :pipe, :fd, :counters, :to_the_exit?]

  @type t :: %__MODULE__{
          server: pid(),
          pipe: Pipe.t(),
          fd: Native.fd(),
          counters: Counters.t(),
          to_the_exit?: boolean()
        }

  @doc "Borrows it, where there is one, and nobody waits for its bytes."
  @spec borrow(pid()) :: t() | nil
  def borrow(server) when node(server) == node() do
    case GenServer.call(server, :lend_stdout, :infinity) do
      {:ok, pipe, counters, leftovers} ->
        %__MODULE__{
          server: server,
          pipe: pipe,
          fd: pipe.fd,
          counters: counters,
          to_the_exit?: leftovers == :kill
        }

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
    over? = borrowed.to_the_exit? and Counters.ended?(borrowed.counters)
    monitor = Process.monitor(borrowed.server)

    receive do
      {:select, ^fd, _, :ready_input} ->
        Process.demonitor(monitor, [:flush])
        read(borrowed, max_bytes)

      {:DOWN, ^monitor, _, _, _} ->
        {{:error, :closed}, borrowed}
    after
      # It was over before the last read, which found nothing.
      if(over?, do: 0, else: @look_after) ->
        Process.demonitor(monitor, [:flush])

        if over?,
          do: {:eof, %{borrowed | pipe: Pipe.close(borrowed.pipe)}},
          else: read(borrowed, max_bytes)
    end
  end

  @doc "Closes it, and takes out of the mailbox what is no message for anybody else."
  @spec return(t() | nil) :: :ok
  def return(nil), do: :ok

  def return(%__MODULE__{fd: fd}) do
    # A select that is armed is cancelled by that.
    :ok = Native.close(fd)
    flush(fd)
  end

  defp flush(fd) do
    receive do
      {:select, ^fd, _, _} -> flush(fd)
    after
      0 -> :ok
    end
  end
end
