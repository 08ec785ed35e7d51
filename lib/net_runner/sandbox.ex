defmodule NetRunner.Sandbox do
  @moduledoc """
  What a command may touch: the option `:sandbox`, which every function that runs a command takes (Linux).

      iex> NetRunner.run(~w(cat /etc/passwd), sandbox: [read: ["/usr", "/lib", "/lib64"]])
      {"", 1}
      iex> {passwd, 0} = NetRunner.run(~w(cat /etc/passwd), sandbox: [read: [:system]])
      iex> passwd =~ "root"
      true

  Commands of language models, converters of files that strangers upload, and build scripts of strangers' repositories are
  what it is for. It needs no root and no container engine. `docs/sandbox.md` says what it does not stop.

  | key | default | |
  |---|---|---|
  | `:read` | `[]` | paths beneath which files may be opened for reading, and directories listed |
  | `:write` | `[]` | paths beneath which files may also be written, created, removed, renamed, linked and truncated |
  | `:exec` | what is in `:read` and `:write` | paths beneath which files may also be executed. With this key, nothing else is |
  | `:network` | `false` | `false`: no socket, but pairs that are connected (socketpair(2)); `:unix`: sockets of `AF_UNIX`; `:loopback`: those of the Internet in a network of the command's own, which has a loopback interface and leads nowhere; `[connect: ports, bind: ports]`: TCP to and on these ports, of every address; `true`: all |
  | `:processes` | shared | `:own`: the command sees no other processes, gets a `/proc` of its own, and the kernel ends all that it has started when it exits, also when NetRunner's helpers are killed. Excludes `leftovers: :leave` |
  | `:tmp` | shared | `:private` or `[size: bytes]`: an empty `/tmp` and `/dev/shm` of the command's own (512 MiB each), where the paths of `:read`, `:write` and `:exec` below `/tmp` are to be found as before |
  | `:metadata` | open | `:locked`: all but the paths of `:write` is mounted read-only, so that chmod(2), chown(2), utimensat(2) and setxattr(2) are refused there too |
  | `:without` | `[]` | layers to give up, by name: `:filesystem`, `:network`, `:signals`, `:system_calls`, `:capabilities` |

  Paths are absolute, and exist when the command starts; symbolic links are followed then, once. `:system` in the list of `:read`
  or `:exec` stands for `preset(:system)`: the system's programs, libraries, interpreters, and single files of `/etc`.

  These are always in force, unless `:without` gives them up:

    * `:filesystem`: nothing but what the paths allow is opened. Always allowed are `/dev/null`, `zero`, `full`, `random` and
      `urandom`, and with `:pty` the command's own terminal by its name in `/dev/pts`. There is no `/proc` (see `:processes`) and no `/dev/shm`
      (see `:tmp`);
    * `:network`: see above;
    * `:signals`: signals, and abstract sockets, reach only what is in the sandbox;
    * `:system_calls`: namespaces, other processes' memory, keyrings, System V and POSIX message queues, io_uring, mounts, typing into a
      terminal and much that only administrators need is refused, and so are programs for another architecture;
    * `:capabilities`: the command has none, also when it is root's, and no set-user-ID program gives it any
      (`no_new_privs`).

  What is refused to a program, it sees as `EACCES`, `EPERM`, `EROFS` or `ENOSYS`. A program that may not be executed is an
  error of the start, as without a sandbox.

      iex> NetRunner.run(~w(true), sandbox: [])
      {:error, :eacces}

  What was asked for and cannot be enforced is an error before the command starts: `{:error, {:sandbox, sentence}}`. The sentence
  says what to change. `support/0` finds out what can be enforced.

      iex> NetRunner.run(~w(true), sandbox: [read: [:system, "/nowhere"]])
      {:error, {:sandbox, ~S(the path "/nowhere" of the sandbox does not exist)}}

  `NetRunner.Process.stats/1`, `NetRunner.Process.info/1` and the `stats` of a `NetRunner.Result` list what is in force.

      iex> {:ok, result} = NetRunner.capture(~w(true), sandbox: [read: [:system], network: true])
      iex> result.stats.sandbox
      [:filesystem, :signals, :system_calls, :capabilities]

  What the paths limit, exactly: opening, listing, creating, removing, renaming, linking and truncating. They do not limit
  stat(2), chdir(2), readlink(2), getxattr(2), inotify, and, without `metadata: :locked`, chmod(2) and the like on files of the same user.
  `:exec` limits execve(2), not what code is run: who may read a program and execute `ld.so` can run it. Nothing below an allowed path
  can be taken away again.

  A sandbox is inherited by all that the command starts, cannot be taken off, and goes with all other options. A `:cd` does not
  have to be readable. The files of `:stdin`, `:stdout`, `:stderr` and `:fds` are opened before.
  """

  alias NetRunner.Error
  alias NetRunner.Sandbox.{Policy, Preset}

  @typedoc "A layer that is always in force, unless it is given up."
  @type layer :: :filesystem | :network | :signals | :system_calls | :capabilities

  @typedoc "What `stats` lists."
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
  What this machine can enforce, found out by trying, or what to change.

  Beside the layers these are `:loopback` and `:ports` (of `:network`), `:processes`, `:tmp` and `:metadata`.

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
  The paths that a preset stands for. Those that a machine does not have are passed over.

      iex> "/usr" in NetRunner.Sandbox.preset(:system)
      true
      iex> "/etc" in NetRunner.Sandbox.preset(:system)
      false
  """
  @spec preset(:system) :: [Path.t()]
  def preset(:system), do: Preset.paths(:system)
end
