defmodule NetRunner.Process.Operations do
  @moduledoc false
  # The callers that wait for something from a command, as pure data: what they asked for, in the order
  # in which they asked.
  #
  # An operation has a kind, which names its queue, and data, which means something only to whoever parked it. Kinds
  # that compete for the same thing (`read` and `read_any`, for bytes of stdout) have queues of their own; `next/2` finds
  # the operation that has waited longest.

  defmodule Operation do
    @moduledoc false
    @enforce_keys [:id, :kind, :from, :data, :monitor, :timer]
    defstruct [:id, :kind, :from, :data, :monitor, :timer]
  end

  @type kind :: atom()
  @type operation :: %Operation{
          id: pos_integer(),
          kind: kind(),
          from: GenServer.from() | nil,
          data: term(),
          monitor: reference() | nil,
          timer: reference() | {:idle, reference() | non_neg_integer()} | nil
        }
  @opaque t :: %__MODULE__{}

  # Each queue is a tree of operations by their ids, so that one can also be taken from the middle.
  defstruct last_id: 0, queues: %{}, callers: %{}

  @spec new() :: t()
  def new, do: %__MODULE__{}

  @doc """
  Puts a caller at the end of its queue. `monitor` is what `drop_caller/2` and `withdraw/2` will be told; `timer` is
  only kept.
  """
  @spec park(t(), kind(), GenServer.from() | nil, term(), reference() | nil, term()) :: t()
  def park(%__MODULE__{} = operations, kind, from, data, monitor, timer \\ nil) do
    id = operations.last_id + 1

    operation = %Operation{
      id: id,
      kind: kind,
      from: from,
      data: data,
      monitor: monitor,
      timer: timer
    }

    queue = Map.get(operations.queues, kind, :gb_trees.empty())

    %{
      operations
      | last_id: id,
        queues: Map.put(operations.queues, kind, :gb_trees.insert(id, operation, queue)),
        callers:
          if(monitor,
            do: Map.put(operations.callers, monitor, {kind, id}),
            else: operations.callers
          )
    }
  end

  @doc "The operation of one of these kinds that has waited longest; it stays where it is."
  @spec next(t(), [kind()]) :: operation() | nil
  def next(%__MODULE__{queues: queues}, kinds) do
    Enum.reduce(kinds, nil, fn kind, first ->
      case queues do
        %{^kind => queue} -> earlier(first, queue |> :gb_trees.smallest() |> elem(1))
        %{} -> first
      end
    end)
  end

  defp earlier(%{id: id} = first, %{id: other}) when id < other, do: first
  defp earlier(_first, operation), do: operation

  @doc "Whether anybody waits in one of these queues."
  @spec any?(t(), [kind()]) :: boolean()
  def any?(%__MODULE__{queues: queues}, kinds), do: Enum.any?(kinds, &is_map_key(queues, &1))

  @doc "Takes out an operation."
  @spec finish(t(), operation()) :: t()
  def finish(%__MODULE__{} = operations, %Operation{kind: kind, id: id, monitor: monitor}) do
    queue = :gb_trees.delete(id, Map.fetch!(operations.queues, kind))

    # No empty queue is kept, so that a key means that somebody waits.
    queues =
      if :gb_trees.is_empty(queue),
        do: Map.delete(operations.queues, kind),
        else: Map.put(operations.queues, kind, queue)

    %{operations | queues: queues, callers: Map.delete(operations.callers, monitor)}
  end

  @doc "Gives an operation new data; it keeps its place."
  @spec update(t(), operation(), term()) :: t()
  def update(%__MODULE__{} = operations, %Operation{} = operation, data) do
    replace(operations, %{operation | data: data})
  end

  @doc "Changes all operations; they keep their places."
  @spec map(t(), (operation() -> operation())) :: t()
  def map(%__MODULE__{} = operations, change) do
    operations |> all() |> Enum.reduce(operations, &replace(&2, change.(&1)))
  end

  @doc "Takes out all operations of a kind, in order."
  @spec take_all(t(), kind()) :: {[operation()], t()}
  def take_all(%__MODULE__{queues: queues} = operations, kind)
      when not is_map_key(queues, kind) do
    {[], operations}
  end

  def take_all(%__MODULE__{} = operations, kind) do
    {queue, queues} = Map.pop!(operations.queues, kind)
    taken = :gb_trees.values(queue)
    callers = Map.drop(operations.callers, Enum.map(taken, & &1.monitor))
    {taken, %{operations | queues: queues, callers: callers}}
  end

  @doc "All operations, of any kind."
  @spec all(t()) :: [operation()]
  def all(%__MODULE__{queues: queues}) do
    Enum.flat_map(queues, fn {_kind, queue} -> :gb_trees.values(queue) end)
  end

  @doc "The operation with this monitor; it stays where it is."
  @spec find(t(), reference()) :: operation() | nil
  def find(%__MODULE__{} = operations, monitor) do
    with {kind, id} <- Map.get(operations.callers, monitor),
         do: :gb_trees.get(id, Map.fetch!(operations.queues, kind))
  end

  @doc "Takes out the operation with this monitor, whatever it is, and gives it, or `nil` when there is none."
  @spec withdraw(t(), reference()) :: {operation() | nil, t()}
  def withdraw(%__MODULE__{} = operations, monitor) do
    case find(operations, monitor) do
      nil -> {nil, operations}
      operation -> {operation, finish(operations, operation)}
    end
  end

  @doc """
  Takes out the operation whose caller is gone, and gives it, or `nil` when there is none.

  A write that has begun stays, without its caller. Race: half a write.
  """
  @spec drop_caller(t(), reference()) :: {operation() | nil, t()}
  def drop_caller(%__MODULE__{} = operations, monitor) do
    case Map.pop(operations.callers, monitor) do
      {nil, _} ->
        {nil, operations}

      {{kind, id}, callers} ->
        operation = :gb_trees.get(id, Map.fetch!(operations.queues, kind))
        {operation, without_caller(%{operations | callers: callers}, operation)}
    end
  end

  defp without_caller(%__MODULE__{} = operations, %Operation{data: {:begun, _, _}} = operation) do
    replace(operations, %{operation | from: nil, monitor: nil, timer: nil})
  end

  defp without_caller(%__MODULE__{} = operations, operation), do: finish(operations, operation)

  @doc "Puts a changed operation in the place of what it was."
  @spec replace(t(), operation()) :: t()
  def replace(%__MODULE__{} = operations, %Operation{kind: kind, id: id} = operation) do
    queue = :gb_trees.update(id, operation, Map.fetch!(operations.queues, kind))
    %{operations | queues: Map.put(operations.queues, kind, queue)}
  end
end
