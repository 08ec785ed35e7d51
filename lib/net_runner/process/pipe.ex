defmodule NetRunner.Process.Pipe do
  @moduledoc false
  # One of a command's output pipes, as the server sees it. It is open until its end has been read.
  #
  # A terminal stays open: many programs close their standard descriptors before they exit, and they would get a SIGHUP
  # if the VM closed its side then.

  alias NetRunner.System.Native

  defstruct [:fd, terminal?: false]

  @type t :: %__MODULE__{fd: Native.fd() | nil, terminal?: boolean()}

  @spec new(Native.fd() | nil, boolean()) :: t() | nil
  def new(fd, terminal? \\ false)
  def new(nil, _terminal?), do: nil
  def new(fd, terminal?), do: %__MODULE__{fd: fd, terminal?: terminal?}

  @doc "Reads at most `max_bytes` of what is there."
  @spec read(t(), pos_integer()) :: {{:ok, binary()} | :eof | {:error, atom()}, t()}
  def read(%__MODULE__{fd: nil} = pipe, _max_bytes), do: {:eof, pipe}

  def read(%__MODULE__{} = pipe, max_bytes) do
    case Native.read(pipe.fd, max_bytes) do
      :eof when not pipe.terminal? -> {:eof, close(pipe)}
      result -> {result, pipe}
    end
  end

  @doc """
  How many bytes are in it. `:infinity` for a terminal: bytes on their way through it are not counted, but its end comes
  by itself.
  """
  @spec rest(t()) :: non_neg_integer() | :infinity
  def rest(%__MODULE__{terminal?: true}), do: :infinity
  def rest(%__MODULE__{fd: nil}), do: 0

  def rest(%__MODULE__{fd: fd}) do
    {:ok, size} = Native.unread(fd)
    size
  end

  @spec close(t()) :: t()
  def close(%__MODULE__{fd: fd} = pipe) do
    if fd, do: Native.close(fd)
    %{pipe | fd: nil}
  end
end
