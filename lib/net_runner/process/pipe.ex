defmodule NetRunner.Process.Pipe do
  @moduledoc false
  # One of a command's output pipes, as the server sees it. It is open until its end has been read.
  #
  # A terminal stays open: many programs close their standard descriptors before they exit, and they would get a SIGHUP
  # if the VM closed its side then.

  alias NetRunner.Process.Guest
  alias NetRunner.System.Native

  # More than any kernel keeps of what goes through a terminal (Linux: some 12 KiB).
  @most_in_terminal 65_536

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

  @doc "As `Native.look_ahead/1`: takes nothing."
  @spec look_ahead(t()) :: :ok | :eof | {:error, atom()}
  def look_ahead(%__MODULE__{fd: nil}), do: :eof
  def look_ahead(%__MODULE__{fd: fd}), do: Native.look_ahead(fd)

  @doc "As `Native.keep_guests_out/1`."
  @spec keep_guests_out(t()) :: boolean()
  def keep_guests_out(%__MODULE__{fd: nil}), do: true
  def keep_guests_out(%__MODULE__{fd: fd}), do: Native.keep_guests_out(fd)

  @doc "As `Guest.let_in/2`."
  @spec let_guests_in(t(), non_neg_integer()) :: :ok
  def let_guests_in(%__MODULE__{fd: nil}, _received), do: :ok
  def let_guests_in(%__MODULE__{fd: fd}, received), do: Guest.let_in(fd, received)

  @doc """
  How many bytes are in it, at most: bytes on their way through a terminal cannot be counted.
  """
  @spec rest(t()) :: non_neg_integer()
  def rest(%__MODULE__{fd: nil}), do: 0
  def rest(%__MODULE__{terminal?: true}), do: @most_in_terminal

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
