defmodule NetRunner.Process.Native do
  @moduledoc false
  # The NIF's functions. `fd` is a resource that owns one descriptor: it closes when it is closed,
  # when the process that made it dies, or when nobody refers to it any more.
  #
  # Where `{:error, :eagain}` comes back, the VM sends the calling process
  # `{:select, fd, :undefined, :ready_input | :ready_output}` once when it is worth another try.

  @on_load :load

  @type fd :: reference()
  @type posix :: atom()
  @type stdio :: :pipe | :null | :redirect
  @type field ::
          {:file | :search_path | :cd, binary()}
          | {:args | :env, [binary()]}
          | {:stop_signal | :kill_timeout, non_neg_integer()}
          | {:leftovers, :kill | :leave}
  @type event ::
          {:started, pos_integer()}
          | {:failed, :receive | :fork | :setup | :cd | :exec, posix()}
          | {:exited, how :: {:exited, 0..255} | {:signaled, 1..64, boolean()},
             {max_rss_bytes :: non_neg_integer(), user_us :: non_neg_integer(),
              system_us :: non_neg_integer()}}

  # What a NIF on a normal scheduler moves at the most; more goes through a dirty scheduler.
  @small 65_536

  def load do
    path = Application.app_dir(:net_runner, "priv/net_runner_nif")

    case :erlang.load_nif(String.to_charlist(path), 0) do
      :ok ->
        :ok

      {:error, {_reason, text}} ->
        # Returned from @on_load, this ends in a log line that shows it.
        {:error,
         "NetRunner's native library does not load (#{text}); " <>
           "`mix deps.compile net_runner --force` builds it anew"}
    end
  end

  @doc "Reads what is there, at most `max_bytes`."
  @spec read(fd(), pos_integer()) ::
          {:ok, binary()} | :eof | {:error, :eagain | :closed | posix()}
  def read(fd, max_bytes) when max_bytes <= @small, do: nif_read(fd, max_bytes)
  def read(fd, max_bytes), do: nif_read_bulk(fd, max_bytes)

  @doc """
  Writes a list of binaries. `{:partial, rest}`: some is written, and there may be room for more at
  once; another call finds out. `{:error, :eagain}`: nothing was written.
  """
  @spec write(fd(), [binary()]) ::
          :ok | {:partial, [binary()]} | {:error, :eagain | :closed | posix()}
  def write(fd, iovec) do
    with :too_large <- nif_write(fd, iovec), do: nif_write_bulk(fd, iovec)
  end

  @doc "Closes a descriptor; `:ok` also when it was closed before."
  @spec close(fd()) :: :ok
  def close(fd), do: nif_close(fd)

  @doc "Starts the helper program."
  @spec start_helper(binary()) :: {:ok, fd(), os_pid :: pos_integer()} | {:error, posix()}
  def start_helper(path), do: nif_start_helper(path)

  @doc "What the helper said first, and what this library expects it to say."
  @spec receive_greeting(fd()) :: {:ok, binary(), binary()} | :eof | {:error, posix()}
  def receive_greeting(socket), do: nif_receive_greeting(socket)

  @doc """
  Asks the launcher for a command; the calling process owns the descriptors. `spec_size` is about
  how many bytes the fields have.
  """
  @spec spawn(fd(), [field()], non_neg_integer(), {stdio(), stdio(), stdio()}, non_neg_integer()) ::
          {:ok, control :: fd(), stdin :: fd() | nil, stdout :: fd() | nil, stderr :: fd() | nil}
          | {:error, posix()}
  def spawn(launcher, fields, spec_size, stdio, pipe_size) do
    with :too_large <- nif_spawn(launcher, fields, spec_size, stdio, pipe_size) do
      nif_spawn_bulk(launcher, fields, spec_size, stdio, pipe_size)
    end
  end

  @doc "Has `{:select, launcher, :undefined, :ready_output}` sent when `spawn/5` is worth a try."
  @spec await_room(fd()) :: :ok | {:error, posix()}
  def await_room(launcher), do: nif_await_room(launcher)

  @doc """
  What the shepherd says; `:eof` when it is gone, `:reset` when it left something unread that it was told.
  """
  @spec receive_event(fd()) ::
          event() | :eof | :reset | {:error, :eagain | :closed | :malformed | posix()}
  def receive_event(control), do: nif_receive_event(control)

  @doc "Has the shepherd send a signal to the command."
  @spec send_signal(fd(), pos_integer()) :: :ok | {:error, posix()}
  def send_signal(control, number), do: nif_send_signal(control, number)

  @doc "Ends the command as a close of the control socket does, but its end can still be heard."
  @spec end_command(fd()) :: :ok | {:error, posix()}
  def end_command(control), do: nif_end(control)

  def nif_read(_fd, _max_bytes), do: not_loaded()
  def nif_read_bulk(_fd, _max_bytes), do: not_loaded()
  def nif_write(_fd, _iovec), do: not_loaded()
  def nif_write_bulk(_fd, _iovec), do: not_loaded()
  def nif_close(_fd), do: not_loaded()
  def nif_start_helper(_path), do: not_loaded()
  def nif_receive_greeting(_socket), do: not_loaded()
  def nif_spawn(_launcher, _fields, _spec_size, _stdio, _pipe_size), do: not_loaded()
  def nif_spawn_bulk(_launcher, _fields, _spec_size, _stdio, _pipe_size), do: not_loaded()
  def nif_await_room(_launcher), do: not_loaded()
  def nif_receive_event(_control), do: not_loaded()
  def nif_send_signal(_control, _number), do: not_loaded()
  def nif_end(_control), do: not_loaded()

  defp not_loaded, do: :erlang.nif_error(:not_loaded)
end
