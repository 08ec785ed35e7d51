defmodule NetRunner.Process.Watchers do
  @moduledoc false
  # Who gets the exit of a command as a message, as pure data: of each process its references, and a monitor, which tells
  # of its death.
  #
  # A reference is a monitor of the server which the watcher made, and an alias (`:erlang.monitor/3`). So it is the VM that
  # tells when the server or its node goes, and `Process.demonitor/2` works. When the command exits, the server sends the
  # message to the alias. That ends the monitor, and so there is one message. A watcher that ends its monitor does not say so;
  # what it has forgotten is found when it comes again.

  # So many references of one process are kept before it is asked which are left.
  @few 16

  @type t :: %{pid() => {monitor :: reference(), count :: pos_integer(), [reference()]}}

  @spec new() :: t()
  def new, do: %{}

  @doc "Adds a reference of a process."
  @spec add(t(), pid(), reference(), fun()) :: t()
  def add(watchers, pid, ref, monitor) do
    case watchers do
      %{^pid => {monitor, count, refs}} -> %{watchers | pid => {monitor, count + 1, [ref | refs]}}
      %{} -> Map.put(watchers, pid, {monitor.(), 1, [ref]})
    end
  end

  @doc "Whether a process has so many references that it should be looked which are left."
  @spec many?(t(), pid()) :: boolean()
  def many?(watchers, pid) do
    case watchers do
      %{^pid => {_monitor, count, _refs}} -> rem(count, @few) == 0
      %{} -> false
    end
  end

  @doc "The process has ended all its monitors but the last one that it made."
  @spec keep_last(t(), pid()) :: t()
  def keep_last(watchers, pid) do
    Map.update!(watchers, pid, fn {monitor, _count, [last | _]} -> {monitor, 1, [last]} end)
  end

  @doc "Takes out a process that died; `nil` when it is none of them."
  @spec drop(t(), pid(), reference()) :: t() | nil
  def drop(watchers, pid, monitor) do
    case watchers do
      %{^pid => {^monitor, _count, _refs}} -> Map.delete(watchers, pid)
      %{} -> nil
    end
  end

  @doc "Tells the exit to a reference of a process."
  @spec tell(reference(), 0..255 | :shepherd_died) :: term()
  def tell(ref, :shepherd_died),
    do: send(ref, {:DOWN, ref, :process, self(), :shepherd_died})

  def tell(ref, status), do: send(ref, {:DOWN, ref, :process, self(), {:exit, status}})

  @doc "All references, and the monitors of their processes."
  @spec all(t()) :: {[reference()], monitors :: [reference()]}
  def all(watchers) do
    entries = Map.values(watchers)

    {Enum.flat_map(entries, fn {_, _, refs} -> refs end),
     Enum.map(entries, fn {monitor, _, _} -> monitor end)}
  end
end
