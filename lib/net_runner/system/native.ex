defmodule NetRunner.System.Native do
  @moduledoc false
  # The NIF's functions. `fd` is a resource that owns one descriptor. The descriptor closes by `close/1`,
  # when the process that made it dies, or when nobody refers to the resource any more.
  #
  # A function that returns `{:error, :eagain}` has selected the descriptor: the VM sends the calling process
  # `{:select, fd, :undefined, :ready_input | :ready_output}` once, when another try is worth it.

  @on_load :load

  @type fd :: reference()
  @type window :: reference()
  @type traffic :: {bytes :: non_neg_integer(), calls :: non_neg_integer()}
  @type posix :: atom()
  @type stdio ::
          :pipe
          | :null
          | :redirect
          | :inherit
          | {:read | :file | :append, path :: binary()}
          | {:fd, fd()}
  @type standard ::
          {stdin :: stdio(), stdout :: stdio(), stderr :: stdio()}
          | {:terminal, rows :: non_neg_integer(), columns :: non_neg_integer(),
             echo :: boolean()}
  @type further :: :input | :output | {:read | :file | :append, path :: binary()}
  @type connections :: {standard(), [{3..255, further()}]}
  @type size :: {bytes :: non_neg_integer(), items :: non_neg_integer()}
  @type field ::
          {:file | :search_path | :cd | :cgroup | :joined_cgroup, binary()}
          | {:args | :env, [binary()]}
          | {:environment, binary()}
          | {:stop_signal | :kill_timeout | :umask | :uid | :gid, non_neg_integer()}
          | {:leftovers, :kill | :leave}
          | {:nice, integer()}
          | {:rlimit, {atom(), non_neg_integer(), non_neg_integer()}}
          | {:groups, [non_neg_integer()]}
          | {:no_new_privs, true}
          | {:sandbox, {layers :: [atom()], network :: atom()}}
          | {:readable | :writable | :executable | :readable_if_there | :executable_if_there,
             [binary()]}
          | {:connect | :bind, [0..65_535]}
          | {:own_processes | :locked_metadata, true}
          | {:private_tmp, {bytes :: pos_integer(), executable? :: boolean()}}
  @type step ::
          :receive
          | :fork
          | :setup
          | :cwd
          | :stdin
          | :stdout
          | :stderr
          | :cgroup
          | :cd
          | :nice
          | :rlimits
          | :groups
          | :group
          | :user
          | :no_new_privs
          | :exec
          | {:fd, 3..255}
          | {:sandbox, NetRunner.Sandbox.Refusal.part() | (index :: 0..65_535)}
  @type event ::
          {:started, pos_integer()}
          | {:failed, step(), posix()}
          | {:exited, how :: {:exited, 0..255} | {:signaled, 1..64, boolean()},
             {max_rss_bytes :: non_neg_integer(), user_us :: non_neg_integer(),
              system_us :: non_neg_integer()}}

  @failure {__MODULE__, :failure}

  @not_replaced "NetRunner's native library cannot be replaced while the VM runs; the one that is loaded goes on working. " <>
                  "Restart the VM to load the new one"

  # A library that does not load must not keep this module from being loaded: in a release, the VM would then not
  # boot, and would not say why. The application asks `loaded/0` when it starts.
  def load do
    if :erlang.module_loaded(__MODULE__) and loaded() == :ok do
      # The VM logs this, and keeps the old code.
      {:error, @not_replaced}
    else
      load_library()
    end
  end

  # An escript is one file, which has the modules in it but no native library.
  @no_folder "NetRunner's native library is not there: it is a file in the folder priv/ of :net_runner, which an escript does not " <>
               "contain. Use a release or `mix run`, or set ERL_LIBS to a folder that has net_runner/priv"

  defp load_library do
    with folder when is_list(folder) <- :code.priv_dir(:net_runner),
         :ok <- :erlang.load_nif(folder ++ ~c"/net_runner_nif", 0) do
      :persistent_term.erase(@failure)
    else
      {:error, :bad_name} -> :persistent_term.put(@failure, @no_folder)
      {:error, {_, text}} -> :persistent_term.put(@failure, does_not_load(text))
    end

    :ok
  end

  defp does_not_load(text) do
    # What dlopen(3) says of a file system that is mounted with `noexec`.
    what_to_do =
      if "#{text}" =~ "failed to map segment",
        do: "its folder may be on a file system that is mounted with `noexec`",
        else: "`mix deps.compile net_runner --force` builds it for this machine"

    "NetRunner's native library does not load (#{text}); #{what_to_do}"
  end

  @doc """
  The bytes of a path that the VM has as characters, such as its working directory. Without a locale (`LANG`), each
  character stands for a byte.
  """
  @spec path_bytes(charlist()) :: binary()
  def path_bytes(path) do
    :unicode.characters_to_binary(path, :unicode, :file.native_name_encoding())
  end

  @doc "Whether the functions below can be called, or why not, in a sentence."
  @spec loaded() :: :ok | {:error, String.t()}
  def loaded do
    case :persistent_term.get(@failure, nil) do
      nil -> :ok
      sentence -> {:error, sentence}
    end
  end

  @doc "Reads at most `max_bytes` of what is there; a lot of it on a dirty scheduler."
  @spec read(fd(), pos_integer()) ::
          {:ok, binary()} | :eof | {:error, :eagain | :closed | posix()}
  def read(fd, max_bytes) do
    with :too_long <- nif_read(fd, max_bytes), do: nif_read_bulk(fd, max_bytes)
  end

  @doc """
  As `read/2`, for a guest: a process other than the one that selects the descriptor. After `{:error, :eagain}` no message
  comes. While guests are kept out there is nothing for it.
  """
  @spec try_read(fd(), pos_integer()) ::
          {:ok, binary()} | :eof | {:error, :eagain | :closed | posix()}
  def try_read(fd, max_bytes) do
    with :too_long <- nif_try_read(fd, max_bytes), do: nif_try_read_bulk(fd, max_bytes)
  end

  @doc """
  As `write/2`, for a guest. Writes all or nothing, and nothing that a pipe does not take as one (PIPE_BUF, pipe(7)).
  """
  @spec try_write(fd(), [binary()]) :: :ok | {:error, :eagain | :closed | posix()}
  def try_write(fd, iovec), do: nif_try_write(fd, iovec)

  @doc """
  Lets no guest in any more: `try_read/2` and `try_write/2` find nothing. A read or a write that has to wait does so, too.
  `false`: a guest is still inside, and what it does comes before what is done from now on; ask again.
  """
  @spec keep_guests_out(fd()) :: boolean()
  def keep_guests_out(fd), do: nif_keep_guests_out(fd)

  @doc """
  Lets guests in again: nobody waits any more. Not if it was left to the server more often than it has `received` that: each
  result of `try_read/2` and `try_write/2` but `{:ok, bytes}` and `:ok` counts.
  """
  @spec let_guests_in(fd(), received :: non_neg_integer()) :: :ok
  def let_guests_in(fd, received), do: nif_let_guests_in(fd, received)

  @doc "Whether there is something to read (`:ok`), or the end has come. Takes nothing."
  @spec look_ahead(fd()) :: :ok | :eof | {:error, :eagain | :closed | posix()}
  def look_ahead(fd), do: nif_look_ahead(fd)

  @doc """
  Writes a list of binaries. `{:partial, rest}`: some was written, and there may be room for more already, so the caller
  tries again; no message comes. `{:error, :eagain}`: nothing was written. `{:error, :guests}`: the same, as a guest is
  inside; no message comes.
  """
  @spec write(fd(), [binary()]) ::
          :ok | {:partial, [binary()]} | {:error, :eagain | :guests | :closed | posix()}
  def write(fd, iovec) do
    with :too_long <- nif_write(fd, iovec), do: nif_write_bulk(fd, iovec)
  end

  @doc "The same for a few bytes that `traffic/1` does not count."
  @spec write_uncounted(fd(), [binary()]) ::
          :ok | {:partial, [binary()]} | {:error, :eagain | :guests | :closed | posix()}
  def write_uncounted(fd, iovec), do: nif_write_uncounted(fd, iovec)

  @doc "Where a feeder lays pieces of input, and its command's server takes them."
  @spec window() :: window()
  def window, do: nif_window()

  @doc """
  Lays a piece there, and sends the server `:fed` when nothing lay there before. `:full`: there is no room for it.
  `:closed`: nobody will write it.
  """
  @spec push(window(), server :: pid(), binary()) :: :ok | :full | :closed
  def push(window, server, piece), do: nif_push(window, server, piece)

  @doc "Takes all that lies there, as one binary."
  @spec take(window()) :: binary()
  def take(window), do: nif_take(window)

  @doc "Drops what lies there, and takes nothing in any more."
  @spec close_window(window()) :: :ok
  def close_window(window), do: nif_close_window(window)

  @doc "What has been read from a descriptor and written to it so far. Also of one that is closed."
  @spec traffic(fd()) :: {read :: traffic(), written :: traffic()}
  def traffic(fd), do: nif_traffic(fd)

  @doc "Closes a descriptor; `:ok` also when it was closed before."
  @spec close(fd()) :: :ok
  def close(fd), do: nif_close(fd)

  @doc """
  Closes the control socket of a command that is over, and keeps its shepherd for the next command. It must have
  said that the command has exited or has not started, and have nothing else to do.
  """
  @spec retire(fd()) :: :ok
  def retire(control), do: nif_retire(control)

  @doc "Closes the control sockets that are kept for the next commands, which ends their shepherds."
  @spec let_idle_go() :: :ok
  def let_idle_go, do: nif_let_idle_go()

  @doc "Starts the helper program."
  @spec start_helper(binary()) :: {:ok, fd(), os_pid :: pos_integer()} | {:error, posix()}
  def start_helper(path), do: nif_start_helper(path)

  @doc "What the helper said first, and the greeting that this library expects."
  @spec receive_greeting(fd()) :: {:ok, binary(), binary()} | :eof | {:error, posix()}
  def receive_greeting(socket), do: nif_receive_greeting(socket)

  @doc """
  Makes the pipes of a command, and sends it to a shepherd: an idle one, or a new one of the launcher's. The calling
  process owns the descriptors, and hears on the control socket whether the command has started. `size`: about how
  many bytes the fields have, and how many items the lists in them.
  The last list has the VM's ends of the further descriptors that are pipes.
  """
  @spec submit(fd(), [field()], size(), connections(), non_neg_integer()) ::
          {:ok, control :: fd(), stdin :: fd() | nil, stdout :: fd() | nil, stderr :: fd() | nil,
           [{3..255, fd()}]}
          | {:error, posix() | {:stdin | :stdout | :stderr | :cwd, posix()}}
  def submit(launcher, fields, size, connections, pipe_size) do
    with :too_long <- nif_submit(launcher, fields, size, connections, pipe_size) do
      nif_submit_bulk(launcher, fields, size, connections, pipe_size)
    end
  end

  @doc "A pipe between two commands; the calling process owns both ends."
  @spec pipe() :: {:ok, read :: fd(), write :: fd()} | {:error, posix()}
  def pipe, do: nif_pipe()

  @doc """
  Sets the size of a terminal; the kernel tells the process group in its foreground (SIGWINCH). `{:error, :eio}`: no
  process has it open any more.
  """
  @spec set_window_size(fd(), non_neg_integer(), non_neg_integer()) ::
          :ok | {:error, :closed | posix()}
  def set_window_size(terminal, rows, columns), do: nif_set_window_size(terminal, rows, columns)

  @doc "How many bytes can be read from a pipe (FIONREAD)."
  @spec unread(fd()) :: {:ok, non_neg_integer()} | {:error, :closed | posix()}
  def unread(fd), do: nif_unread(fd)

  @doc "The character that ends a terminal's input."
  @spec eof_character(fd()) :: {:ok, byte()} | {:error, :closed | posix()}
  def eof_character(terminal), do: nif_eof_character(terminal)

  @doc """
  The variables of the VM (as `:os.env/0` gives them), but not those that `except` names, byte for byte:
  `NAME=value`, a NUL after each; and the value of PATH, if it is among them.

  `System.get_env/0` cannot give the bytes of a value that is not UTF-8.
  """
  @spec environment([{charlist(), charlist()}], except :: [binary()]) ::
          {binary(), binary() | nil}
  def environment(variables, except) do
    if many?(variables, except),
      do: nif_environment_bulk(variables, except),
      else: nif_environment(variables, except)
  end

  # So much takes about 100 microseconds.
  @most_variables 512
  @most_characters 65_536

  defp many?(variables, except) do
    length(variables) + length(except) > @most_variables or
      characters(variables, 0) > @most_characters
  end

  # There must be no fun in this module: when a hot upgrade is refused, OTP 25 leaves its funs pointing to the code
  # that was thrown away, and the VM crashes at the next call.
  defp characters([], sum), do: sum

  defp characters([{name, value} | variables], sum) do
    characters(variables, sum + length(name) + length(value))
  end

  @doc "A user by name or ID (getpwnam(3)), with the groups that it is in (getgrouplist(3))."
  @spec user(String.t() | non_neg_integer()) ::
          {:ok, uid :: non_neg_integer(), gid :: non_neg_integer(), groups :: [non_neg_integer()]}
          | {:error, :enoent | posix()}
  def user(name_or_id), do: nif_user(name_or_id)

  @doc "A group by name (getgrnam(3))."
  @spec group(String.t()) :: {:ok, gid :: non_neg_integer()} | {:error, :enoent | posix()}
  def group(name), do: nif_group(name)

  @doc "Has the VM send `{:select, launcher, :undefined, :ready_output}` when `submit/5` is worth another try."
  @spec await_room(fd()) :: :ok | {:error, posix()}
  def await_room(launcher), do: nif_await_room(launcher)

  @doc """
  What the shepherd says; `:eof` when it is gone, `:reset` when it is gone and has left a request unread.
  """
  @spec receive_event(fd()) ::
          event() | :eof | :reset | {:error, :eagain | :closed | :malformed | posix()}
  def receive_event(control), do: nif_receive_event(control)

  @doc "Has the shepherd send a signal to the command, its process group, or all that is left of what it started."
  @spec send_signal(fd(), non_neg_integer(), :command | :group | :tree) :: :ok | {:error, posix()}
  def send_signal(control, number, to \\ :command), do: nif_send_signal(control, number, to)

  @doc "Has the shepherd stop the command and all that it started, or let it go on."
  @spec suspend(fd(), boolean()) :: :ok | {:error, posix()}
  def suspend(control, suspended?), do: nif_suspend(control, suspended?)

  @doc "Has the shepherd end the command, as a close of the control socket would; its exit can still be received."
  @spec end_command(fd()) :: :ok | {:error, posix()}
  def end_command(control), do: nif_end_command(control)

  @doc "The first whole lines of a binary, at most `max_lines`, and the rest."
  @spec lines(binary(), pos_integer(), boolean()) :: {[binary()], binary()}
  def lines(chunk, max_lines, trim?), do: nif_lines(chunk, max_lines, trim?)

  @doc "Closes the VM's side of the control socket for requests; what the shepherd says can still be received."
  @spec shut(fd()) :: :ok | {:error, :closed | posix()}
  def shut(control), do: nif_shut(control)

  @doc """
  Takes a command back that has been submitted, and has not started. `true`: nobody has read of it, and nobody will start it. (On other
  systems than Linux that is not known, and it may be started and ended at once.) `false`: a shepherd has read of it.
  """
  @spec withdraw(fd()) :: boolean()
  def withdraw(control), do: nif_withdraw(control)

  def nif_read(_fd, _max_bytes), do: not_loaded()
  def nif_read_bulk(_fd, _max_bytes), do: not_loaded()
  def nif_try_read(_fd, _max_bytes), do: not_loaded()
  def nif_try_read_bulk(_fd, _max_bytes), do: not_loaded()
  def nif_try_write(_fd, _iovec), do: not_loaded()
  def nif_keep_guests_out(_fd), do: not_loaded()
  def nif_let_guests_in(_fd, _received), do: not_loaded()
  def nif_traffic(_fd), do: not_loaded()
  def nif_look_ahead(_fd), do: not_loaded()
  def nif_write(_fd, _iovec), do: not_loaded()
  def nif_write_bulk(_fd, _iovec), do: not_loaded()
  def nif_write_uncounted(_fd, _iovec), do: not_loaded()
  def nif_window, do: not_loaded()
  def nif_push(_window, _server, _piece), do: not_loaded()
  def nif_take(_window), do: not_loaded()
  def nif_close_window(_window), do: not_loaded()
  def nif_close(_fd), do: not_loaded()
  def nif_retire(_control), do: not_loaded()
  def nif_let_idle_go, do: not_loaded()
  def nif_start_helper(_path), do: not_loaded()
  def nif_receive_greeting(_socket), do: not_loaded()
  def nif_submit(_launcher, _fields, _size, _connections, _pipe_size), do: not_loaded()
  def nif_submit_bulk(_launcher, _fields, _size, _connections, _pipe_size), do: not_loaded()
  def nif_lines(_chunk, _max_lines, _trim), do: not_loaded()
  def nif_pipe, do: not_loaded()
  def nif_set_window_size(_terminal, _rows, _columns), do: not_loaded()
  def nif_eof_character(_terminal), do: not_loaded()
  def nif_unread(_fd), do: not_loaded()
  def nif_environment(_variables, _except), do: not_loaded()
  def nif_environment_bulk(_variables, _except), do: not_loaded()
  def nif_user(_user), do: not_loaded()
  def nif_group(_name), do: not_loaded()
  def nif_await_room(_launcher), do: not_loaded()
  def nif_receive_event(_control), do: not_loaded()
  def nif_send_signal(_control, _number, _to), do: not_loaded()
  def nif_suspend(_control, _suspended), do: not_loaded()
  def nif_end_command(_control), do: not_loaded()
  def nif_shut(_control), do: not_loaded()
  def nif_withdraw(_control), do: not_loaded()

  defp not_loaded do
    :erlang.nif_error(RuntimeError.exception(:persistent_term.get(@failure, "not loaded")))
  end
end
