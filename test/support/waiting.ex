defmodule NetRunner.Waiting do
  @moduledoc false
  # Who waits for something of a command, as its server has noted it.

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process.Operations

  @doc "How many wait: for `:stdout`, `:stderr`, `:any`, `:collect`, `:stdin`, `:exit` or `:stop`."
  def count(p, kind) do
    %{inlet: inlet, outlets: outlets, waiters: waiters} = :sys.get_state(p)

    queues = for %{queue: queue} <- [inlet, outlets, %{queue: waiters}], do: queue
    queues |> Enum.flat_map(&Operations.all/1) |> Enum.count(&(&1.kind == kind))
  end

  @doc "Until what the library has logged is written: other processes do that."
  def await_log, do: Tree.await(fn -> loggers() == [] end)

  @doc "The processes that write what the library has logged."
  def loggers do
    log = {:initial_call, {NetRunner.Log, :log, 4}}
    for pid <- Process.list(), Process.info(pid, :initial_call) == log, do: pid
  end

  @doc "Until so many wait."
  def await(p, kind, count \\ 1), do: Tree.await(fn -> count(p, kind) >= count end)
end
