defmodule NetRunner.Process.Announcer do
  @moduledoc false
  # Tells telemetry handlers of one command, in a process of its own.
  #
  # Handlers are a user's code: they may take any time, and may ask the command's server something. The server waits for
  # them, so that an event has been handled when the next thing happens, but only so long (`patience/0`), and not beyond
  # what it has to mind. At the start it waits here, and minds the death of the owner, and the deadline; at the end, it goes on
  # serving, and is sent `{reply, :handled}`. When the server ends before its command, for whatever reason, the announcer is still
  # there to say so.

  alias NetRunner.Process.Context
  alias NetRunner.Telemetry

  # In ms, for the handlers of one event.
  @patience 3_000

  @typedoc "The process; or, once it was asked to announce the end, the name of its answer."
  @type t :: pid() | reference()

  @doc "For so many ms, handlers are waited for."
  @spec patience() :: pos_integer()
  def patience, do: @patience

  @doc "Starts it for the command of the calling process. The handlers inherit this context."
  @spec start(Telemetry.span(), Context.t()) :: pid()
  def start(span, context), do: spawn(__MODULE__, :begin, [span, self(), context])

  @doc """
  Returns when the handlers of the command's start have returned, one of those who want it (by their monitors) is dead, or so many ms
  have passed.
  """
  @spec await_start(pid(), %{reference() => true}, timeout()) :: :ok
  # In the order of terms, `:infinity` comes after all numbers.
  def await_start(announcer, wanted_by, timeout),
    do: await(announcer, :start, wanted_by, min(timeout, @patience))

  @doc "As `await_start/3`, for a command that could not be started: both that it was to start, and why it did not."
  @spec await_failure(pid(), term(), %{reference() => true}) :: :ok
  def await_failure(announcer, reason, wanted_by),
    do: await(announcer, {:fail, reason}, wanted_by, @patience)

  defp await(announcer, request, wanted_by, timeout) do
    reply = ask(announcer, request)

    receive do
      {^reply, :handled} ->
        :ok

      {:DOWN, ^reply, :process, _, _} ->
        :ok

      # A handler asks this process something, which would wait for the handler. It is answered when the command has started.
      {:"$gen_call", {^announcer, _}, _} = call ->
        send(self(), call)
        forget(reply)

      # Race: owner dies during the start. The server still has to receive this.
      {:DOWN, ref, :process, _, _} = news when is_map_key(wanted_by, ref) ->
        send(self(), news)
        forget(reply)
    after
      timeout -> forget(reply)
    end
  end

  @doc """
  Has the command's end announced, and returns at once. When the handlers have returned, the caller is sent `{reply, :handled}`, or a
  `:DOWN` of that reference.
  """
  @spec finish(pid(), Telemetry.ending()) :: reply :: reference()
  def finish(announcer, ending), do: ask(announcer, {:finish, ending})

  # An answer that comes when nobody waits for it any more is dropped.
  defp ask(announcer, request) do
    reply = :erlang.monitor(:process, announcer, alias: :reply_demonitor)
    send(announcer, {reply, request})
    reply
  end

  defp forget(reply) do
    Process.demonitor(reply, [:flush])
    :ok
  end

  @doc false
  @spec begin(Telemetry.span(), server :: pid(), Context.t()) :: :ok
  def begin(span, server, context) do
    Context.adopt(context)
    announce(span, Process.monitor(server))
  end

  @doc false
  @spec announce(Telemetry.span(), reference()) :: :ok
  def announce(span, server) do
    receive do
      {reply, :start} ->
        Telemetry.start(span)
        handled(reply)

        # Race: upgraded while it waits.
        :erlang.hibernate(__MODULE__, :announce, [span, server])

      {reply, {:finish, ending}} ->
        Telemetry.finish(span, ending)
        handled(reply)

      {reply, {:fail, reason}} ->
        Telemetry.start(span)
        Telemetry.finish(span, {:exception, :error, reason})
        handled(reply)

      {:DOWN, ^server, :process, _, reason} ->
        Telemetry.finish(span, {:exception, :exit, reason})
    end
  end

  defp handled(reply) do
    send(reply, {reply, :handled})
    :ok
  end
end
