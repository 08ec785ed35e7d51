defmodule NetRunner.Run.Input do
  @moduledoc false
  # What a command reads from its stdin, in the ways it can be given: iodata, which the command's server
  # writes by itself; enumerables, and functions that put things into a `Collectable`, for which a process of
  # their own (the feeder) is started.
  #
  # The feeder is linked to the server. When what it runs raises, throws or exits, the server is told why,
  # ends the command, and the failure surfaces where the output is read, also when the command has exited meanwhile. When the command has had enough,
  # the feeder's next write says so, and what it runs is left as an enumeration is left early: its
  # cleanup runs.

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Context, Feeder}

  @type t :: :none | :open | {:iovec, [binary()]} | {:feeder, (pid() -> term())}

  defmodule Sink do
    @moduledoc false
    # Where a function puts the input. It throws itself out of the function when nobody reads any more.
    @enforce_keys [:server, :feeder]
    defstruct [:server, :feeder]

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
    ArgumentError ->
      raise ArgumentError,
            "the option :input is a list that is no iodata: something in it is neither a string nor a byte nor such a list"
  end

  def new(%{input: function}) when is_function(function, 1) do
    {:feeder, fn server -> function.(%Sink{server: server, feeder: self()}) end}
  end

  def new(%{input: enumerable}) do
    {:feeder,
     fn server ->
       sink = %Sink{server: server, feeder: self()}
       Enum.each(enumerable, &write(sink, &1))
     end}
  end

  @doc "What the server has to know of it."
  @spec for_server(t()) :: :none | :open | {:iovec, [binary()]}
  def for_server({:feeder, _}), do: :open
  def for_server(input), do: input

  @doc "Starts the feeder, where there has to be one, on behalf of the calling process."
  @spec feed(t(), pid()) :: pid() | nil
  def feed({:feeder, produce}, server) do
    context = Context.capture()

    # As the server's: chunks must not outlive their use.
    :erlang.spawn_opt(
      fn ->
        Context.adopt(context)
        run(produce, server)
      end,
      [{:fullsweep_after, 8}]
    )
  end

  def feed(_input, _server), do: nil

  @doc """
  Watches a feeder, while the command's server is there. A failure is lost to nobody: one from before was told to the
  server, and `await_end/1` gives one that comes later.
  """
  @spec watch(pid() | nil) :: reference() | nil
  def watch(feeder), do: feeder && Process.monitor(feeder)

  @doc """
  Waits until the feeder is gone, of a command that is: it sees that its command has had enough, or it is
  killed. Gives how it failed, if it did so since `watch/1`.
  """
  @spec await_end(reference() | nil) :: :ok | {:error, {:input_failed, term()}}
  def await_end(nil), do: :ok

  def await_end(monitor) do
    receive do
      {:DOWN, ^monitor, _, _, {:input_failed, _} = failed} ->
        {:error, failed}

      {:DOWN, ^monitor, _, _, _} ->
        :ok
    end
  end

  @doc "What a command came to, when its feeder is gone too; a failure of the input is raised, thrown or exited with."
  @spec result(result, reference() | nil) :: result when result: term()
  def result(result, watch) do
    case {result, await_end(watch)} do
      {{:error, {:input_failed, {kind, reason, stack}}}, _} ->
        :erlang.raise(kind, reason, stack)

      {_, {:error, {:input_failed, {kind, reason, stack}}}} ->
        :erlang.raise(kind, reason, stack)

      {result, :ok} ->
        result
    end
  end

  @doc "Writes, or leaves what the feeder runs."
  @spec write(%Sink{}, iodata()) :: %Sink{}
  def write(%Sink{server: server} = sink, iodata) do
    Feeder.mark(:writes)
    with {:error, _} <- Command.write(server, iodata), do: leave(sink)
    Feeder.mark(:produces)
    sink
  end

  @spec leave(%Sink{}) :: no_return()
  defp leave(%Sink{server: server, feeder: feeder}) when feeder == self() do
    throw({__MODULE__, :unwanted, server})
  end

  # Another process that the input works with, such as a task: a throw would be a crash there. This exit is
  # logged by nobody, and takes the feeder along where they are linked.
  defp leave(%Sink{server: server}), do: exit(Feeder.unwanted(server))

  defp run(produce, server) do
    attach(server)
    unwanted = Feeder.unwanted(server)

    try do
      produce.(server)
      Command.close_stdin(server)
    catch
      # An early end of the command, or of its interest, is no failure of the input.
      :throw, {__MODULE__, :unwanted, ^server} ->
        Command.close_stdin(server)

      # The same, heard from a task that was awaited.
      :exit, {^unwanted, _} ->
        Command.close_stdin(server)

      kind, reason ->
        failure = {kind, reason, __STACKTRACE__}
        _ = Command.input_failed(server, failure)
        exit({:input_failed, failure})
    end
  end

  defp attach(server) do
    Feeder.see_off_after(server)
    GenServer.call(server, :attach_feeder, :infinity)
  catch
    :exit, _ -> exit(:normal)
  end
end
