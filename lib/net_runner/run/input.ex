defmodule NetRunner.Run.Input do
  @moduledoc false
  # What a command reads from its stdin, in the ways it can be given: iodata, which the command's server
  # writes by itself; enumerables, and functions that put things into a `Collectable`, for which a process of
  # their own (the feeder) is started.
  #
  # The feeder is linked to the server. When the code that it runs raises, throws or exits, the feeder tells the server why;
  # the server ends the command, and the failure is raised where the output is read, even if the command has exited by then.
  # When the command reads no more, the feeder's next write says so, and its code is left like an enumeration that stops
  # early: its cleanup runs.
  #
  # Small pieces are put ("laid") into a window, up to 64 KiB of them, while the feeder goes on producing. The server takes
  # everything in the window at once. It is told only of the first piece, and never waits for more: pieces that come slowly
  # are written one by one, and pieces that come fast in as few writes as the server can do.

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Client, Context, Feeder, Usher}
  alias NetRunner.System.Native

  # Pieces of up to so many bytes are copied into the window; larger ones are written as they are.
  @small 4096

  @type t :: :none | :open | {:iovec, [binary()]} | {:feeder, (%__MODULE__.Sink{} -> term())}

  defmodule Sink do
    @moduledoc false
    # Where a function puts the input. It throws itself out of the function when nobody reads any more. `window`: `nil`
    # when the server is on another node than the feeder.
    @enforce_keys [:server, :feeder, :window]
    defstruct [:server, :feeder, :window]

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
            "the option :input is a list but not iodata: it contains something that is neither a string nor a byte nor a list of these"
  end

  def new(%{input: function}) when is_function(function, 1) do
    {:feeder, function}
  end

  # Both that of an enumerable, as `Stream` makes them, and one that was meant to be of one argument.
  def new(%{input: function}) when is_function(function, 2) do
    {:feeder,
     fn sink ->
       write = fn piece, _ -> {:cont, write(sink, piece)} end

       case function.({:cont, nil}, write) do
         {state, _} when state in [:done, :halted] ->
           :ok

         _other ->
           raise ArgumentError,
                 "the option :input is a function of two arguments, which stands for an enumerable (Enumerable.reduce/3), but did " <>
                   "not return what one returns; a function that writes its input takes one argument, a Collectable"
       end
     end}
  end

  def new(%{input: enumerable}) do
    {:feeder, fn sink -> Enum.each(enumerable, &write(sink, &1)) end}
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
  Watches a feeder, while the command's server is there. No failure is lost: the server knows one from before, and
  `await_end/1` returns one that comes later.
  """
  @spec watch(pid() | nil) :: reference() | nil
  def watch(feeder), do: feeder && Process.monitor(feeder)

  @doc """
  Waits until the feeder of a command that is gone, or was given up, is gone too: it notices that its command reads no more, or it is killed.
  Returns how it failed, if it did so since `watch/1`.
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
  # A window is of the server's node alone; the feeder, or a task that helps it, may be on another one.
  def write(%Sink{server: server, window: window} = sink, iodata)
      when window == nil or node(server) != node(),
      do: write_through(sink, iodata)

  def write(sink, iodata) do
    case Client.iovec!(iodata) do
      [piece] when byte_size(piece) <= @small -> push(sink, piece)
      iovec -> write_through(sink, iovec)
    end
  end

  defp push(%Sink{server: server, window: window} = sink, piece) do
    case Native.push(window, server, piece) do
      :ok ->
        sink

      :full ->
        write_through(sink, piece)

      :closed ->
        Feeder.mark(:writes)
        leave(sink)
    end
  end

  # Waits until all of it is written, and what lay in the window before.
  defp write_through(%Sink{server: server} = sink, iodata) do
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
    sink = attach(server)

    case produced(produce, sink) do
      :all_or_enough ->
        Command.close_stdin(server)

      {:failed, failure} ->
        # What failed would not have been asked for if the pieces before it had been refused one by one.
        case deliver(sink) do
          :ok ->
            _ = Command.input_failed(server, failure)
            exit({:input_failed, failure})

          {:error, _} ->
            Command.close_stdin(server)
        end
    end
  end

  # What was produced before is written, or at least waited for.
  defp deliver(%Sink{window: nil}), do: :ok

  defp deliver(%Sink{server: server, window: window}) do
    Feeder.mark(:writes)

    case Native.take(window) do
      "" ->
        _ = Command.write(server, [])
        :ok

      bytes ->
        Command.write(server, bytes)
    end
  end

  defp produced(produce, %Sink{server: server} = sink) do
    unwanted = Feeder.unwanted(server)

    try do
      produce.(sink)
      :all_or_enough
    catch
      # It is not a failure of the input when the command ends early, or stops reading.
      :throw, {__MODULE__, :unwanted, ^server} ->
        :all_or_enough

      # The same, heard from a task that was awaited.
      :exit, {^unwanted, _} ->
        :all_or_enough

      kind, reason ->
        {:failed, {kind, reason, __STACKTRACE__}}
    end
  end

  defp attach(server) do
    usher = Usher.start(server)
    window = if node(server) == node(), do: Native.window()
    :ok = GenServer.call(server, {:attach_feeder, usher, window}, :infinity)
    %Sink{server: server, feeder: self(), window: window}
  catch
    :exit, _ -> exit(:normal)
  end
end
