defmodule NetRunner.Process.Pipe do
  @moduledoc false
  # One of a command's output pipes, as the server sees it: open until its end was read.
  #
  # A terminal stays open: many programs close their standard descriptors before they exit, and a terminal
  # that both sides have closed sends them SIGHUP.

  alias NetRunner.System.Native

  defstruct [:fd, terminal?: false]

  @type t :: %__MODULE__{fd: Native.fd() | nil, terminal?: boolean()}

  @spec new(Native.fd() | nil, boolean()) :: t() | nil
  def new(fd, terminal? \\ false)
  def new(nil, _terminal?), do: nil
  def new(fd, terminal?), do: %__MODULE__{fd: fd, terminal?: terminal?}

  @doc "Reads what is there, at most `max_bytes`."
  @spec read(t(), pos_integer()) :: {{:ok, binary()} | :eof | {:error, atom()}, t()}
  def read(%__MODULE__{fd: nil} = pipe, _max_bytes), do: {:eof, pipe}

  def read(%__MODULE__{} = pipe, max_bytes) do
    case Native.read(pipe.fd, max_bytes) do
      :eof when not pipe.terminal? -> {:eof, close(pipe)}
      result -> {result, pipe}
    end
  end

  @doc "How many bytes are in it. What is on its way through a terminal is not counted: that has an end of its own."
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
