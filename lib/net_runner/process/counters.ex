defmodule NetRunner.Process.Counters do
  @moduledoc false
  # What any process can see of a command (`NetRunner.list/0` does) without asking the command's server, which may be
  # busy: what has gone through its pipes, which the descriptors count, and how far its life has got.

  alias NetRunner.Process.Stats
  alias NetRunner.System.Native

  @ended 1
  @discarding 2

  @enforce_keys [:stdin, :stdout, :stderr, :marks]
  defstruct @enforce_keys

  @opaque t :: %__MODULE__{
            stdin: Native.fd() | nil,
            stdout: Native.fd() | nil,
            stderr: Native.fd() | nil,
            marks: :counters.counters_ref()
          }

  @type bytes :: %{in: non_neg_integer(), out: non_neg_integer(), err: non_neg_integer()}

  @spec new(Native.fd() | nil, Native.fd() | nil, Native.fd() | nil) :: t()
  def new(stdin, stdout, stderr) do
    %__MODULE__{stdin: stdin, stdout: stdout, stderr: stderr, marks: :counters.new(2, [])}
  end

  @doc "Notes that the command is over."
  @spec put_ended(t()) :: :ok
  def put_ended(counters), do: :counters.put(counters.marks, @ended, 1)

  @spec ended?(t()) :: boolean()
  def ended?(counters), do: :counters.get(counters.marks, @ended) == 1

  @doc "Notes that what the command prints is discarded from now on. Race: read under a discard."
  @spec put_discarding(t()) :: :ok
  def put_discarding(counters), do: :counters.put(counters.marks, @discarding, 1)

  @spec discarding?(t()) :: boolean()
  def discarding?(counters), do: :counters.get(counters.marks, @discarding) == 1

  @doc "The bytes written to stdin, read from stdout and read from stderr."
  @spec bytes(t()) :: bytes()
  def bytes(counters) do
    %{
      in: counters.stdin |> written() |> elem(0),
      out: counters.stdout |> read() |> elem(0),
      err: counters.stderr |> read() |> elem(0)
    }
  end

  @doc "Puts the counts into the statistics."
  @spec into(t(), Stats.t()) :: Stats.t()
  def into(counters, stats) do
    {bytes_in, writes} = written(counters.stdin)
    {bytes_out, reads} = read(counters.stdout)
    {bytes_err, reads_of_stderr} = read(counters.stderr)

    %{
      stats
      | bytes_in: bytes_in,
        bytes_out: bytes_out,
        bytes_err: bytes_err,
        read_count: reads + reads_of_stderr,
        write_count: writes
    }
  end

  defp read(nil), do: {0, 0}
  defp read(fd), do: fd |> Native.traffic() |> elem(0)

  defp written(nil), do: {0, 0}
  defp written(fd), do: fd |> Native.traffic() |> elem(1)
end
