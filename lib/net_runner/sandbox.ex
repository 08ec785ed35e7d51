defmodule NetRunner.Sandbox do
  @moduledoc """
  The option `:sandbox`, which every function that runs a command takes: it limits what the command may touch (Linux).

      iex> NetRunner.run(~w(cat /etc/passwd), sandbox: [read: ["/usr", "/lib", "/lib64"]])
      {"", 1}
      iex> {passwd, 0} = NetRunner.run(~w(cat /etc/passwd), sandbox: [read: [:system]])
      iex> passwd =~ "root"
      true

  It is for commands of language models, converters of uploaded files, and build scripts of repositories that you do not know. It needs
  neither root nor a container engine. `docs/sandbox.md` says what it does not stop, and what to add when a program does not work in it.

  Its life: the keys are checked when the function is called. When the command is started, its process gives up everything that is not
  allowed, before it executes the program. From then on the kernel refuses everything else, for the command and for all that it starts, until
  the last of these processes is gone. No process can leave its sandbox.

  | key | default | |
  |---|---|---|
  | `:read` | `[]` | paths beneath which files may be opened for reading, and directories listed |
  | `:write` | `[]` | paths beneath which files may also be written, created, removed, renamed, linked and truncated |
  | `:exec` | what is in `:read` and `:write` | paths beneath which files may also be executed. With this key, nothing elsewhere may be |
  | `:network` | `false` | `false`: no sockets, except connected pairs (socketpair(2)); `:unix`: local sockets (`AF_UNIX`); `:loopback`: a network of the command's own, which has nothing but a loopback interface; `[connect: ports, bind: ports]`: TCP connections to these ports of any address, and TCP listeners on these; `true`: no limit |
  | `:processes` | shared | `:own`: the command sees no processes but its own, in a `/proc` of its own, and when it exits the kernel ends everything that it started, even if NetRunner's helpers were killed. Excludes `leftovers: :leave` |
  | `:tmp` | shared | `:private` or `[size: bytes]`: an empty `/tmp` and `/dev/shm` of the command's own (512 MiB each). The paths of `:read`, `:write` and `:exec` below `/tmp` are still there; `:write` must not name these two themselves |
  | `:metadata` | open | `:locked`: everything except the paths of `:write` is read-only, so that chmod(2), chown(2), utimensat(2) and setxattr(2) are refused there too |
  | `:without` | `[]` | layers to give up, by name: `:filesystem`, `:network`, `:signals`, `:system_calls`, `:capabilities` |

  Paths are strings, absolute, and must exist when the command starts; symbolic links are followed then, once. `:system` in the
  list of `:read` or `:exec` stands for `preset(:system)`: the system's programs, libraries, interpreters, and single files of
  `/etc`. Without it, hardly any program can start. A key with the value `nil` is as if it were left out.

  A sandbox has these layers. All are in force, except those that `:without` gives up. The keys of a layer that is given up have no effect.

    * `:filesystem`: only what the paths allow can be opened. Always allowed are `/dev/null`, `zero`, `full`, `random` and
      `urandom`, and with `:pty` the command's own terminal by its name in `/dev/pts`. There is no `/proc` (see `:processes`) and no `/dev/shm`
      (see `:tmp`);
    * `:network`: see above;
    * `:signals`: signals and connections to abstract sockets reach only processes in the same sandbox;
    * `:system_calls`: refused are namespaces, other processes' memory, keyrings, System V IPC and POSIX message queues,
      io_uring, mounts, typing into a terminal, much that only administrators need, and programs for another architecture;
    * `:capabilities`: the command has none, even if it runs as root, and no set-user-ID program gives it any
      (`no_new_privs`).

  A program sees a refusal as one of the errors `EACCES`, `EPERM`, `EROFS` and `ENOSYS`. When the command itself may not be executed, it does
  not start:

      iex> NetRunner.run(~w(true), sandbox: [])
      {:error, :eacces}

  Nor does it start when a key cannot be enforced on this machine, or when a path does not exist. Then the result is
  `{:error, {:sandbox, sentence}}`, and the sentence says what to change. `support/0` finds out what can be enforced.

      iex> NetRunner.run(~w(true), sandbox: [read: [:system, "/nowhere"]])
      {:error, {:sandbox, ~S(the path "/nowhere" of the sandbox does not exist)}}

  `NetRunner.Process.stats/1`, `NetRunner.Process.info/1` and the `stats` of a `NetRunner.Result` list the layers in force.

      iex> {:ok, result} = NetRunner.capture(~w(true), sandbox: [read: [:system], network: true])
      iex> result.stats.sandbox
      [:filesystem, :signals, :system_calls, :capabilities]

  The paths limit opening, listing, creating, removing, renaming, linking and truncating. They do not limit stat(2), chdir(2),
  readlink(2), getxattr(2) and inotify(7), nor, without `metadata: :locked`, chmod(2) and the like on files of the same user. `:exec` limits
  execve(2), but not which code runs: a program that can execute `ld.so` can run every program that it can read. Nothing below an
  allowed path can be excluded.

  The directory of `:cd` does not have to be readable. The files of `:stdin`, `:stdout`, `:stderr` and `:fds` are opened by NetRunner,
  outside of the sandbox.
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.Error
  alias NetRunner.Options.Kind
  alias NetRunner.Sandbox.{Policy, Preset}

  @typedoc "A layer, which is in force unless `:without` gives it up."
  @type layer :: :filesystem | :network | :signals | :system_calls | :capabilities

  @typedoc "What the `sandbox` of `NetRunner.Process.Stats` lists."
  @type in_force :: layer() | :processes | :tmp | :metadata

  @type path :: String.t() | :system

  @typedoc "The option `:sandbox`."
  @type t :: [
          read: [path()],
          write: [String.t()],
          exec: [path()],
          network: boolean() | :unix | :loopback | [connect: [1..65_535], bind: [0..65_535]],
          processes: :own,
          tmp: :private | [size: pos_integer()],
          metadata: :locked,
          without: [layer()]
        ]

  @doc """
  Finds out what this machine can enforce, by running a shell in each kind of sandbox.

  Returns a map. Its keys are the layers, `:loopback` and `:ports` (of `:network`), `:processes`, `:tmp` and `:metadata`. A value is `:ok`, or
  `{:missing, sentence}`, and the sentence says what to change.

      iex> support = NetRunner.Sandbox.support()
      iex> support |> Map.keys() |> Enum.sort()
      [:capabilities, :filesystem, :loopback, :metadata, :network, :ports, :processes, :signals, :system_calls, :tmp]
      iex> Enum.all?(support, fn {_, found} -> found == :ok or match?({:missing, _sentence}, found) end)
      true
  """
  @spec support() :: %{atom() => :ok | {:missing, String.t()}}
  def support do
    layers = for layer <- Policy.layers(), do: {layer, [without: Policy.layers() -- [layer]]}
    without = [without: Policy.layers() -- [:network]]

    rest = [
      loopback: [network: :loopback] ++ without,
      ports: [network: [connect: [1]]] ++ without,
      processes: [processes: :own, without: Policy.layers()],
      tmp: [tmp: :private, without: Policy.layers()],
      metadata: [metadata: :locked, without: Policy.layers()]
    ]

    Map.new(layers ++ rest, fn {name, sandbox} -> {name, try_out([read: ["/"]] ++ sandbox)} end)
  end

  defp try_out(sandbox) do
    case NetRunner.run(["/bin/sh", "-c", ":"], sandbox: sandbox, stderr: :disabled) do
      {_output, 0} -> :ok
      {:error, {:sandbox, sentence}} -> {:missing, sentence}
      {:error, reason} -> {:missing, "nothing could be run: " <> Error.describe(reason)}
      {_output, status} -> {:missing, "a shell in such a sandbox exited with status #{status}"}
    end
  end

  @doc """
  Returns the paths that a preset stands for. Those that do not exist on this machine are skipped when a command starts.

      iex> "/usr" in NetRunner.Sandbox.preset(:system)
      true
      iex> "/etc" in NetRunner.Sandbox.preset(:system)
      false
  """
  @spec preset(:system) :: [Path.t()]
  def preset(:system), do: Preset.paths(:system)

  def preset(other),
    do: raise(ArgumentError, "the only preset is :system, got: #{Kind.no_string(other)}")
end
