defmodule NetRunner.Process.Operations do
  @moduledoc false
  # The callers that wait for something of a command, as pure data: what they asked for, in the order
  # in which they asked.
  #
  # An operation has a kind, which names the queue it stands in, and data, which only the process
  # looks at. Kinds that compete for the same thing (`read` and `read_any` for bytes of stdout) stand in
  # queues of their own; `next/2` finds the one that has waited longest.

  defmodule Operation do
    @moduledoc false
    @enforce_keys [:id, :kind, :from, :data, :monitor]
    defstruct [:id, :kind, :from, :data, :monitor]
  end

  @type kind :: atom()
  @type operation :: %Operation{
          id: pos_integer(),
          kind: kind(),
          from: GenServer.from() | nil,
          data: term(),
          monitor: reference() | nil
        }
  @opaque t :: %__MODULE__{}

  defstruct last_id: 0, queues: %{}

  @spec new() :: t()
  def new, do: %__MODULE__{}

  @doc "Puts a caller at the end of its queue. `monitor` is what `drop_caller/2` will be told."
  @spec park(t(), kind(), GenServer.from() | nil, term(), reference() | nil) :: t()
  def park(%__MODULE__{} = operations, kind, from, data, monitor) do
    id = operations.last_id + 1
    operation = %Operation{id: id, kind: kind, from: from, data: data, monitor: monitor}
    queue = Map.get(operations.queues, kind, :queue.new())
    put_queue(%{operations | last_id: id}, kind, :queue.in(operation, queue))
  end

  @doc "The operation of one of these kinds that has waited longest; it stays where it is."
  @spec next(t(), [kind()]) :: operation() | nil
  def next(%__MODULE__{queues: queues}, kinds) do
    kinds
    |> Enum.flat_map(fn kind ->
      case queues do
        %{^kind => queue} -> [:queue.get(queue)]
        %{} -> []
      end
    end)
    |> Enum.min_by(& &1.id, fn -> nil end)
  end

  @doc "Whether anybody waits in one of these queues."
  @spec any?(t(), [kind()]) :: boolean()
  def any?(%__MODULE__{queues: queues}, kinds), do: Enum.any?(kinds, &is_map_key(queues, &1))

  @doc "The operation that was parked last; there must be one."
  @spec last(t(), kind()) :: operation()
  def last(%__MODULE__{queues: queues}, kind), do: :queue.last(Map.fetch!(queues, kind))

  @doc "Takes out an operation that `next/2` gave."
  @spec finish(t(), operation()) :: t()
  def finish(%__MODULE__{} = operations, %Operation{kind: kind, id: id}) do
    queue = Map.fetch!(operations.queues, kind)
    %Operation{id: ^id} = :queue.get(queue)
    put_queue(operations, kind, :queue.drop(queue))
  end

  @doc "Gives an operation that `next/2` gave new data; it keeps its place."
  @spec update(t(), operation(), term()) :: t()
  def update(%__MODULE__{} = operations, %Operation{kind: kind, id: id}, data) do
    queue = Map.fetch!(operations.queues, kind)
    %Operation{id: ^id} = operation = :queue.get(queue)
    put_queue(operations, kind, :queue.in_r(%{operation | data: data}, :queue.drop(queue)))
  end

  @doc "Takes out all operations of a kind, in order."
  @spec take_all(t(), kind()) :: {[operation()], t()}
  def take_all(%__MODULE__{} = operations, kind) do
    {queue, queues} = Map.pop(operations.queues, kind, :queue.new())
    {:queue.to_list(queue), %{operations | queues: queues}}
  end

  @doc "Takes out the operation with this id, and gives it, or `nil` when there is none."
  @spec drop(t(), pos_integer()) :: {operation() | nil, t()}
  def drop(%__MODULE__{} = operations, id) do
    case find(operations, &(&1.id == id)) do
      nil -> {nil, operations}
      operation -> {operation, delete(operations, operation)}
    end
  end

  @doc """
  Takes out the operation whose caller is gone, and gives it, or `nil` when there is none.

  A write that was begun is not taken out: half of its bytes are in the pipe, and without the rest the
  next write would stand in the middle of it. It loses its caller and stays.
  """
  @spec drop_caller(t(), reference()) :: {operation() | nil, t()}
  def drop_caller(%__MODULE__{} = operations, monitor) do
    found = find(operations, &(&1.monitor == monitor))

    case found do
      nil ->
        {nil, operations}

      %Operation{data: {:begun, _}} ->
        {found, replace(operations, found, &%{&1 | from: nil, monitor: nil})}

      %Operation{} ->
        {found, delete(operations, found)}
    end
  end

  defp find(operations, wanted?) do
    Enum.find_value(operations.queues, fn {_, queue} ->
      Enum.find(:queue.to_list(queue), wanted?)
    end)
  end

  defp delete(operations, %Operation{id: id, kind: kind}) do
    queue = :queue.filter(&(&1.id != id), Map.fetch!(operations.queues, kind))
    put_queue(operations, kind, queue)
  end

  defp replace(operations, %Operation{id: id, kind: kind}, change) do
    queue =
      :queue.filter(
        fn operation -> if operation.id == id, do: [change.(operation)], else: true end,
        Map.fetch!(operations.queues, kind)
      )

    put_queue(operations, kind, queue)
  end

  # No empty queue is kept, so that a key means that somebody waits.
  defp put_queue(operations, kind, queue) do
    queues =
      if :queue.is_empty(queue),
        do: Map.delete(operations.queues, kind),
        else: Map.put(operations.queues, kind, queue)

    %{operations | queues: queues}
  end
end
