defmodule NetRunner.Process.Counters do
  @moduledoc false
  # What has gone through the pipes of a command, in counters that any process can read (`NetRunner.list/0` does)
  # without asking the command's server, which may be busy.

  alias NetRunner.Process.Stats

  @stdin 1
  @stdout 2
  @stderr 3
  @reads 4
  @writes 5
  @ended 6
  @access 7

  # Who may read stdout.
  @anybody 0
  @server 1
  @nobody 2

  @opaque t :: :counters.counters_ref()

  @type bytes :: %{in: non_neg_integer(), out: non_neg_integer(), err: non_neg_integer()}

  @spec new() :: t()
  def new, do: :counters.new(7, [])

  @doc "Counts a read of so many bytes."
  @spec add_read(t(), :stdout | :stderr, pos_integer()) :: :ok
  def add_read(counters, stream, size) do
    :counters.add(counters, if(stream == :stdout, do: @stdout, else: @stderr), size)
    :counters.add(counters, @reads, 1)
  end

  @doc "Counts a write of so many bytes."
  @spec add_write(t(), non_neg_integer()) :: :ok
  def add_write(counters, size) do
    :counters.add(counters, @stdin, size)
    :counters.add(counters, @writes, 1)
  end

  @doc "Notes that the command is over."
  @spec put_ended(t()) :: :ok
  def put_ended(counters), do: :counters.put(counters, @ended, 1)

  @spec ended?(t()) :: boolean()
  def ended?(counters), do: :counters.get(counters, @ended) == 1

  @doc """
  Says who may read stdout from now on: the server alone, or `:nobody`, as bytes are being discarded. Before, it is
  `:anybody`: the server, and the process that it has lent stdout to. Race: read under a discard.
  """
  @spec put_access(t(), :server | :nobody) :: :ok
  def put_access(counters, :server), do: :counters.put(counters, @access, @server)
  def put_access(counters, :nobody), do: :counters.put(counters, @access, @nobody)

  @spec access(t()) :: :anybody | :server | :nobody
  def access(counters) do
    case :counters.get(counters, @access) do
      @anybody -> :anybody
      @server -> :server
      @nobody -> :nobody
    end
  end

  @doc "The bytes written to stdin, read from stdout and read from stderr."
  @spec bytes(t()) :: bytes()
  def bytes(counters) do
    %{
      in: :counters.get(counters, @stdin),
      out: :counters.get(counters, @stdout),
      err: :counters.get(counters, @stderr)
    }
  end

  @doc "Puts the counts into the statistics."
  @spec into(t(), Stats.t()) :: Stats.t()
  def into(counters, stats) do
    %{
      stats
      | bytes_in: :counters.get(counters, @stdin),
        bytes_out: :counters.get(counters, @stdout),
        bytes_err: :counters.get(counters, @stderr),
        read_count: :counters.get(counters, @reads),
        write_count: :counters.get(counters, @writes)
    }
  end
end
