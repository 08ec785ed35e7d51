defmodule NetRunner.Process.Announcer do
  @moduledoc false
  # Tells telemetry handlers of one command, in a process of its own.
  #
  # Handlers are a user's code and may take any time. The command's server waits for them, so that an event has been
  # handled when the next thing happens, but not beyond what it has to mind: the death of the owner, and the deadline.
  # When the server ends before its command, for whatever reason, the announcer is still there to say so.

  alias NetRunner.Process.Context
  alias NetRunner.Telemetry

  @type t :: pid() | nil

  @doc "Starts it, where there may be handlers, for the command of the calling process. They inherit this context."
  @spec start(Telemetry.span(), Context.t()) :: t()
  def start(span, context) do
    if Telemetry.handlers?() do
      server = self()

      spawn(fn ->
        Context.adopt(context)
        announce(span, Process.monitor(server))
      end)
    end
  end

  @doc """
  Returns when the handlers of the command's start have returned, one of those who want it (by their monitors) is dead, or so many ms
  have passed.
  """
  @spec await_start(t(), %{reference() => true}, timeout()) :: :ok
  def await_start(nil, _wanted_by, _timeout), do: :ok

  def await_start(announcer, wanted_by, timeout) do
    reply = ask(announcer, :start)

    receive do
      {^reply, :handled} ->
        :ok

      {:DOWN, ^reply, :process, _, _} ->
        :ok

      # Race: owner dies during the start. The server still has to receive this.
      {:DOWN, ref, :process, _, _} = news when is_map_key(wanted_by, ref) ->
        send(self(), news)
        forget(reply)
    after
      timeout -> forget(reply)
    end
  end

  @doc "Returns when the handlers of the command's end have returned."
  @spec finish(t(), (... -> Telemetry.ending())) :: :ok
  def finish(nil, _ending), do: :ok

  def finish(announcer, ending) do
    reply = ask(announcer, {:finish, ending.()})

    receive do
      {^reply, :handled} -> :ok
      {:DOWN, ^reply, :process, _, _} -> :ok
    end
  end

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

  defp announce(span, server) do
    receive do
      {reply, :start} ->
        Telemetry.start(span)
        send(reply, {reply, :handled})
        announce(span, server)

      {reply, {:finish, ending}} ->
        Telemetry.finish(span, ending)
        send(reply, {reply, :handled})

      {:DOWN, ^server, :process, _, reason} ->
        Telemetry.finish(span, {:exception, :exit, reason})
    end
  end
end
