defmodule NetRunner.Run.Progress do
  @moduledoc false
  # The line that `progress: true` draws on the VM's stderr, where that is a terminal.
  #
  # Its life: a process of its own looks at the counters of a command a few times per second, asking nobody, and draws
  # what `Bar` makes of them. It clears the line when the command's server is gone, when the caller is, or when the
  # caller says so, who waits for that only when the command has been ended. A terminal that takes nothing
  # (Ctrl-S) holds up this process alone.
  #
  # Of several at the same time, the one that has the name draws, and the next one when that is gone.

  alias NetRunner.Process.Listing
  alias NetRunner.Run.{Bar, Input}
  alias NetRunner.Terminal

  @every_ms 200
  # A caller waits no longer for a terminal.
  @patience_ms 1_000

  @enforce_keys [:caller, :server, :bar, :began]
  defstruct @enforce_keys ++ [drawn?: false]

  # `caller`, `server`: the monitor of the one, and the other with its monitor.
  @type t :: pid() | nil

  @doc "Starts drawing, for the calling process, where the options of its command say so."
  @spec start(map(), Input.t(), pid(), [String.t()]) :: t()
  def start(%{progress: true} = options, input, server, [executable | _]) do
    caller = self()
    size = size(input, options.input)

    spawn(fn ->
      # Otherwise there is nothing to do, and to wait for.
      if Terminal.stderr_columns() do
        loop(%__MODULE__{
          caller: Process.monitor(caller),
          server: {server, Process.monitor(server)},
          bar: Bar.new(executable, bytes(size)),
          began: now()
        })
      end
    end)
  end

  def start(_options, _input, _server, _command), do: nil

  @doc "Clears the line. The command must have been ended."
  @spec stop(t()) :: :ok
  def stop(nil), do: :ok

  def stop(progress) do
    monitor = Process.monitor(progress)
    send(progress, :over)

    receive do
      {:DOWN, ^monitor, _, _, _} -> :ok
    after
      @patience_ms ->
        Process.exit(progress, :kill)
        Process.demonitor(monitor, [:flush])
        :ok
    end
  end

  # What can be known without asking the file system, or anything that a user has made.
  defp size({:iovec, iovec}, _given), do: IO.iodata_length(iovec)
  defp size(_input, %File.Stream{path: path} = stream), do: plain?(stream) && {:file, path}
  defp size(_input, _given), do: nil

  # What is read is what is in the file.
  defp plain?(stream) do
    Map.get(stream, :node, node()) == node() and
      not Enum.any?(stream.modes, &(&1 == :compressed or match?({:encoding, _}, &1)))
  end

  defp bytes({:file, path}) do
    case File.stat(path) do
      {:ok, %{type: :regular, size: size}} -> size
      _unknown -> nil
    end
  end

  defp bytes(size) when is_integer(size), do: size
  defp bytes(_unknown), do: nil

  defp loop(%__MODULE__{caller: caller, server: {_, server}} = state) do
    receive do
      :over -> clear(state)
      {:DOWN, ^caller, _, _, _} -> clear(state)
      {:DOWN, ^server, _, _, _} -> clear(state)
    after
      @every_ms -> state |> look() |> draw() |> loop()
    end
  end

  defp look(%{server: {server, _}, bar: bar, began: began} = state) do
    case Listing.bytes(server) do
      nil ->
        state

      %{in: input, out: out, err: err} ->
        %{state | bar: Bar.add(bar, now() - began, input, out + err)}
    end
  end

  defp draw(state) do
    columns = my_turn?() && Terminal.stderr_columns()

    if columns do
      IO.write(:standard_error, ["\r", Bar.line(state.bar, columns), "\e[K"])
      %{state | drawn?: true}
    else
      state
    end
  end

  defp my_turn? do
    Process.whereis(__MODULE__) == self() or Process.register(self(), __MODULE__)
  rescue
    # Another has it.
    ArgumentError -> false
  end

  defp clear(%{drawn?: true}) do
    IO.write(:standard_error, "\r\e[K")

    Terminal.await_stderr()
  end

  defp clear(_state), do: :ok

  defp now, do: System.monotonic_time(:millisecond)
end
