defmodule NetRunner.Registry do
  @moduledoc false
  # What is known of processes, as long as they live: of a server its command, and the descriptors for guests; of a daemon
  # its command; of a cancel token the commands under it. An entry is made by the process that it goes with, and read by anybody.
  #
  # A process with an entry is linked to this one, so that it ends when the application stops.
  #
  # Elixir's Registry is loaded by few other programs, and with what it takes of Elixir it would be a fifth of the code that is loaded
  # for a first command (`bin/bench boot`).

  use GenServer

  alias NetRunner.Log

  # A row for each entry, by its key: `{key, pid, value}`; and for each process one for each of its entries: `{pid, key}`.
  @table __MODULE__

  @typedoc "What the entry says, and of which process, command or token."
  @type key :: {:command | :guest | :daemon | :token, pid() | reference()}

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc """
  Makes an entry that goes with the calling process. Returns the process of the registry, to which that is linked now.
  """
  @spec put(key(), term()) :: {:ok, pid()} | {:error, :not_started}
  def put(key, value) do
    case Process.whereis(__MODULE__) do
      nil -> {:error, :not_started}
      registry -> put(registry, key, value)
    end
  end

  @doc "The same, by a process that has found this registry, which may have been restarted by now."
  @spec put(pid(), key(), term()) :: {:ok, pid()} | {:error, :not_started}
  def put(registry, key, value) do
    Process.link(registry)

    # In this order: a process that is killed in between leaves nothing. Not both at once, which would lock the whole table.
    :ets.insert(@table, {self(), key})
    :ets.insert(@table, {key, self(), value})

    # A new one knows nothing of the link.
    if Process.whereis(__MODULE__) == registry do
      {:ok, registry}
    else
      forget(self(), key)
      :ets.delete_object(@table, {self(), key})
      {:error, :not_started}
    end
  rescue
    # Race: stopped application.
    ArgumentError -> {:error, :not_started}
  end

  @doc "The values with this key. Without the application, there are none."
  @spec get(key()) :: [term()]
  def get(key) do
    for {_key, pid, value} <- :ets.lookup(@table, key), Process.alive?(pid), do: value
  rescue
    ArgumentError -> []
  end

  @doc "All entries of a kind, with the processes that they go with. Without the application, there are none."
  @spec all(:command | :guest | :daemon | :token) :: [{pid(), term()}]
  def all(kind) do
    entries = :ets.select(@table, [{{{kind, :_}, :"$1", :"$2"}, [], [{{:"$1", :"$2"}}]}])
    for {pid, _value} = entry <- entries, Process.alive?(pid), do: entry
  rescue
    ArgumentError -> []
  end

  @impl true
  def init(nil) do
    Process.flag(:trap_exit, true)

    :ets.new(@table, [
      :named_table,
      :public,
      :duplicate_bag,
      read_concurrency: true,
      write_concurrency: true
    ])

    {:ok, nil}
  end

  @impl true
  def handle_info({:EXIT, pid, _reason}, state) do
    for {_pid, key} <- :ets.take(@table, pid), do: forget(pid, key)
    {:noreply, state}
  end

  def handle_info(message, state), do: {:noreply, pass_over(message, state)}

  @impl true
  def handle_cast(request, state), do: {:noreply, pass_over(request, state)}

  @impl true
  def handle_call(request, _from, state),
    do: {:reply, {:error, :closed}, pass_over(request, state)}

  defp forget(pid, key), do: :ets.match_delete(@table, {key, pid, :_})

  defp pass_over(message, state) do
    Log.unknown(__MODULE__, message)
    state
  end
end
