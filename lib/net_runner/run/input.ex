defmodule NetRunner.Run.Input do
  @moduledoc false
  # What a command reads from its stdin, in the ways it can be given: iodata, which the command's server
  # writes by itself; enumerables, and functions that put things into a `Collectable`, for which a process of
  # their own (the feeder) is started.
  #
  # The feeder is linked to the server. When what it runs raises, throws or exits, the server is told why,
  # ends the command, and the failure surfaces where the output is read. When the command has had enough,
  # the feeder's next write says so, and what it runs is left as an enumeration is left early: its
  # cleanup runs.

  alias NetRunner.Process, as: Command

  # What an input gets for its cleanup after the command.
  @grace 5_000

  @type t :: :none | :open | {:iovec, [binary()]} | {:feeder, (pid() -> term())}

  defmodule Sink do
    @moduledoc false
    # Where a function puts the input. It throws itself out of the function when nobody reads any more.
    defstruct [:server]

    defimpl Collectable do
      def into(sink) do
        {sink,
         fn
           sink, {:cont, iodata} -> NetRunner.Run.Input.write(sink, iodata)
           sink, :done -> sink
           _sink, :halt -> :ok
         end}
      end
    end
  end

  @doc "Sorts what was given as `:input`."
  @spec new(map()) :: t()
  # A pipe that was asked for, and is at its end.
  def new(%{input: nil, stdin: :pipe}), do: {:iovec, []}
  def new(%{input: nil}), do: :none

  def new(%{input: input}) when is_binary(input) or is_list(input) do
    {:iovec, :erlang.iolist_to_iovec(input)}
  rescue
    # Neither the message nor the stacktrace of the failed call shows the input, which may be secret.
    ArgumentError -> raise ArgumentError, "the option :input is a list, but no iodata"
  end

  def new(%{input: function}) when is_function(function, 1) do
    {:feeder, fn server -> function.(%Sink{server: server}) end}
  end

  def new(%{input: enumerable}) do
    {:feeder, fn server -> Enum.each(enumerable, &write(%Sink{server: server}, &1)) end}
  end

  @doc "What the server has to know of it."
  @spec for_server(t()) :: :none | :open | {:iovec, [binary()]}
  def for_server({:feeder, _}), do: :open
  def for_server(input), do: input

  @doc "Starts the feeder, where there has to be one."
  @spec feed(t(), pid()) :: :ok
  def feed({:feeder, produce}, server) do
    # As the server's: chunks must not outlive their use.
    :erlang.spawn_opt(fn -> run(produce, server) end, [{:fullsweep_after, 8}])
    :ok
  end

  def feed(_input, _server), do: :ok

  @doc "Called by the server when it ends: the feeder finds out by itself, or is killed."
  @spec let_go(pid()) :: :ok
  def let_go(feeder) do
    spawn(fn ->
      monitor = Process.monitor(feeder)

      receive do
        {:DOWN, ^monitor, _, _, _} -> :ok
      after
        @grace -> Process.exit(feeder, :kill)
      end
    end)

    :ok
  end

  @doc "Writes, or leaves what the feeder runs."
  @spec write(%Sink{}, iodata()) :: %Sink{}
  def write(%Sink{server: server} = sink, iodata) do
    with {:error, _} <- Command.write(server, iodata), do: throw({__MODULE__, :unwanted, server})
    sink
  end

  defp run(produce, server) do
    attach(server)

    try do
      produce.(server)
      Command.close_stdin(server)
    catch
      # An early end of the command, or of its interest, is no failure of the input.
      :throw, {__MODULE__, :unwanted, ^server} -> Command.close_stdin(server)
      kind, reason -> exit({:input_failed, kind, reason, __STACKTRACE__})
    end
  end

  defp attach(server) do
    GenServer.call(server, :attach_feeder, :infinity)
  catch
    :exit, _ -> exit(:normal)
  end
end
