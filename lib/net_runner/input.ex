defmodule NetRunner.Input do
  @moduledoc false
  # What a command reads from its stdin, in the two ways it can be given: iodata, which the command's
  # server writes by itself, and enumerables, for which a process of their own (the feeder) is started.
  #
  # The feeder is linked to the server and dies with it. When the enumerable raises, throws or exits,
  # the server is told why, ends the command, and the failure surfaces where the output is read.

  alias NetRunner.Process, as: Command

  @type t :: :none | :open | {:iovec, [binary()]} | {:enumerable, Enumerable.t()}

  @doc "Sorts what was given as `:input`."
  @spec new(map()) :: t()
  def new(%{input: input, stdin: stdin}) when input != nil and stdin not in [nil, :pipe] do
    raise ArgumentError,
          "the options :input and :stdin exclude each other, got stdin: #{inspect(stdin)}"
  end

  def new(%{input: nil}), do: :none

  def new(%{input: input}) when is_binary(input) or is_list(input) do
    {:iovec, :erlang.iolist_to_iovec(input)}
  rescue
    ArgumentError ->
      reraise ArgumentError,
              [message: "the option :input is no iodata: #{inspect(input)}"],
              __STACKTRACE__
  end

  def new(%{input: enumerable}), do: {:enumerable, enumerable}

  @doc "What the server has to know of it."
  @spec for_server(t()) :: :none | :open | {:iovec, [binary()]}
  def for_server({:enumerable, _}), do: :open
  def for_server(input), do: input

  @doc "Starts the feeder, where there has to be one."
  @spec feed(t(), pid()) :: :ok
  def feed({:enumerable, enumerable}, server) do
    # As the server's: chunks must not outlive their use.
    :erlang.spawn_opt(fn -> run(enumerable, server) end, [{:fullsweep_after, 8}])
    :ok
  end

  def feed(_input, _server), do: :ok

  defp run(enumerable, server) do
    attach(server)

    try do
      # An early end of the command, or of its interest, is no failure of the input.
      Enum.reduce_while(enumerable, :ok, fn iodata, :ok ->
        case Command.write(server, iodata) do
          :ok -> {:cont, :ok}
          {:error, _} -> {:halt, :ok}
        end
      end)

      Command.close_stdin(server)
    catch
      kind, reason -> exit({:input_failed, kind, reason, __STACKTRACE__})
    end
  end

  defp attach(server) do
    GenServer.call(server, :attach_feeder, :infinity)
  catch
    :exit, _ -> exit(:normal)
  end
end
