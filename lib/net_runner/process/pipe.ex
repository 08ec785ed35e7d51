defmodule NetRunner.Process.Pipe do
  @moduledoc false
  # One of a command's output pipes, as the server sees it: open until its end was read.
  #
  # A terminal stays open: many programs close their standard descriptors before they exit, and a terminal
  # that both sides have closed sends them SIGHUP.

  alias NetRunner.Process.Native

  # A read of this size or less runs on the scheduler that called it.
  @small 65_536

  defstruct [:fd, bulk?: false, terminal?: false]

  @type t :: %__MODULE__{fd: Native.fd() | nil, bulk?: boolean(), terminal?: boolean()}

  @spec new(Native.fd() | nil, boolean()) :: t() | nil
  def new(fd, terminal? \\ false)
  def new(nil, _terminal?), do: nil
  def new(fd, terminal?), do: %__MODULE__{fd: fd, terminal?: terminal?}

  @doc """
  Reads what is there, at most `max_bytes`. A pipe that was busy at its last read is read in larger pieces,
  on a dirty scheduler; one that was not would only lose time by the change of scheduler.
  """
  @spec read(t(), pos_integer()) :: {{:ok, binary()} | :eof | {:error, atom()}, t()}
  def read(%__MODULE__{fd: nil} = pipe, _max_bytes), do: {:eof, pipe}

  def read(%__MODULE__{} = pipe, max_bytes) do
    max_bytes = if pipe.bulk?, do: max_bytes, else: min(max_bytes, @small)

    case Native.read(pipe.fd, max_bytes) do
      {:ok, bytes} -> {{:ok, bytes}, %{pipe | bulk?: byte_size(bytes) >= @small}}
      :eof -> {:eof, if(pipe.terminal?, do: pipe, else: close(pipe))}
      {:error, reason} -> {{:error, reason}, pipe}
    end
  end

  @spec close(t()) :: t()
  def close(%__MODULE__{fd: fd} = pipe) do
    if fd, do: Native.close(fd)
    %{pipe | fd: nil}
  end
end
