defmodule NetRunner.Log do
  @moduledoc false
  # What is logged by processes that have to go on. Another process calls Logger, as one of its handlers may hang, or may run a
  # command itself. It has the context of the caller.

  require Logger

  alias NetRunner.Process.Context

  # In ms.
  @patience 1_000

  @spec write(Logger.level(), String.t(), keyword()) :: :ok
  def write(level, sentence, metadata \\ []) do
    spawn(__MODULE__, :log, [level, sentence, metadata, Context.capture()])
    :ok
  end

  @doc "The same, and returns when it is logged; but after a second at the latest, as a handler may hang."
  @spec write_and_wait(Logger.level(), String.t()) :: :ok
  def write_and_wait(level, sentence) do
    {_pid, monitor} = spawn_monitor(__MODULE__, :log, [level, sentence, [], Context.capture()])

    receive do
      {:DOWN, ^monitor, :process, _, _} -> :ok
    after
      @patience ->
        Process.demonitor(monitor, [:flush])
        :ok
    end
  end

  @doc "For a process that gets a message that it does not know."
  @spec unknown(module(), term()) :: :ok
  def unknown(module, message) do
    write(
      :warning,
      "#{inspect(module)} received a message that it does not know: #{inspect(message)}"
    )
  end

  @doc false
  @spec log(Logger.level(), String.t(), keyword(), Context.t()) :: :ok
  def log(level, sentence, metadata, context) do
    Context.adopt(context)
    Logger.log(level, sentence, metadata)
  end
end
