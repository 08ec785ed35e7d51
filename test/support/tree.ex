defmodule NetRunner.Guarantees.Tree do
  @moduledoc false
  # Process trees of the fault matrix, found in /proc by a mark in their environment, which every
  # process of a tree inherits.

  import ExUnit.Assertions, only: [assert: 1]

  @script Path.expand("../guarantees/shape.py", __DIR__)

  defstruct [:mark, :ready_file, :fds]

  @doc "For a test that is alone in the VM: with the number of its descriptors while nothing runs."
  def new do
    # The launcher is there, and so are its descriptors.
    {"", 0} = NetRunner.run(~w(true))
    await(fn -> at_rest?() end, 60_000, fn -> helpers() end)
    %{beside_others() | fds: fds()}
  end

  @doc "For a test that runs beside others."
  def beside_others do
    mark = "nr-#{System.unique_integer([:positive])}-#{:os.getpid()}"
    tree = %__MODULE__{mark: mark, ready_file: Path.join(System.tmp_dir!(), mark)}

    ExUnit.Callbacks.on_exit(fn ->
      File.rm(tree.ready_file)
      # A test that failed may leave some, and the tests behind it count.
      kill_all(tree)
    end)

    tree
  end

  @doc """
  Why a test of what only Linux has cannot be run here; `nil` when it can. (`bin/matrix fallbacks` tests on Linux what the native
  part uses elsewhere.)
  """
  def needs_linux do
    if fallbacks?() or not match?({:unix, :linux}, :os.type()),
      do: "what it shows is promised on Linux only, see docs/guarantees.md"
  end

  @doc """
  The tag of a test that is skipped if there is a reason, or none: `skip: nil` would take away what the module or the `describe`
  says.
  """
  def skip(reason) when reason in [nil, false], do: []
  def skip(reason), do: [skip: reason]

  def linux_only, do: skip(needs_linux())

  @doc "Why a test that loads code, or sends functions to another VM, cannot be run under `bin/coverage`; `nil` when it can."
  def needs_its_code do
    if Process.whereis(:cover_server),
      do: "the modules here count what the tests reach: they are others than those in the files"
  end

  defp fallbacks?, do: System.get_env("RUSTFLAGS", "") =~ "net_runner_posix"

  def root?, do: :os.cmd(~c"id -u") == ~c"0\n"

  @cap_sys_ptrace 0x80000

  @doc "Whether this process, and so a command that keeps its capabilities, has CAP_SYS_PTRACE."
  def may_trace? do
    with {:ok, status} <- File.read("/proc/self/status"),
         [_, effective] <- Regex.run(~r/^CapEff:\s*(\w+)$/m, status),
         do: Bitwise.band(String.to_integer(effective, 16), @cap_sys_ptrace) != 0,
         else: (_ -> false)
  end

  @doc "Runs a command in a PID namespace that has so many processes at the most (`kernel.pid_max`)."
  def in_small_namespace(command, pid_max) do
    script = "echo #{pid_max} > /proc/sys/kernel/pid_max && exec \"$@\""
    ~w(unshare --pid --fork --kill-child --mount-proc sh -c) ++ [script, "sh" | command]
  end

  @doc "Why there is no such namespace here; `nil` where there is one."
  def reason_against_small_namespaces do
    cond do
      reason = needs_linux() ->
        reason

      not root?() ->
        "only root can make a PID namespace without a user namespace"

      # It would be the machine's.
      :os.version() < {6, 14, 0} ->
        "before Linux 6.14 no PID namespace has a kernel.pid_max of its own"

      not small_namespaces?() ->
        "it cannot make a PID namespace with a kernel.pid_max of its own"

      true ->
        nil
    end
  end

  defp small_namespaces? do
    [executable | args] = in_small_namespace(["true"], 2_000)
    match?({_, 0}, System.cmd(executable, args, stderr_to_stdout: true))
  end

  @doc "The program shapes of the matrix; shape.py says what each does."
  def shapes do
    ~w(plain background_children setsid_child daemon ignores_signals stopped deep wide
       keeps_forking closes_stdout holds_stdout other_user terminal cgroup own_processes)a
  end

  @doc "Why a shape cannot be had here; `nil` when it can."
  # Something of these leaves the command's process group.
  def reason_to_skip(shape)
      when shape in [:setsid_child, :daemon, :keeps_forking, :terminal, :cgroup, :own_processes],
      do: needs_linux() || reason_to_skip_on_linux(shape)

  def reason_to_skip(shape), do: reason_to_skip_on_linux(shape)

  defp reason_to_skip_on_linux(:other_user),
    do: if(not root?(), do: "becoming another user needs root")

  defp reason_to_skip_on_linux(:cgroup) do
    if cgroup_root() == nil,
      do: "needs root and a cgroup file system of version 2 that can be written"
  end

  defp reason_to_skip_on_linux(:own_processes) do
    case NetRunner.Sandbox.support() do
      %{processes: {:missing, sentence}} -> sentence
      %{filesystem: {:missing, sentence}} -> sentence
      %{} -> nil
    end
  end

  defp reason_to_skip_on_linux(_shape), do: nil

  @doc "The shapes that can be had here."
  def possible_shapes, do: Enum.filter(shapes(), &(reason_to_skip(&1) == nil))

  @doc "The options that make a shape what it is, beside its program."
  def options(_tree, :terminal), do: [pty: [echo: false]]
  def options(tree, :cgroup), do: [cgroup_path: "net_runner_test/#{tree.mark}"]

  def options(tree, :own_processes) do
    [sandbox: [read: ["/"], write: [Path.dirname(tree.ready_file)], processes: :own]]
  end

  def options(_tree, _shape), do: []

  @doc "Where cgroup v2 is mounted, when this user may make cgroups there; also beside version 1."
  def cgroup_root do
    Enum.find(["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], fn directory ->
      match?(
        {:ok, %{access: :read_write}},
        File.stat(Path.join(directory, "cgroup.subtree_control"))
      )
    end)
  end

  @doc "The controllers that a cgroup below it can have, as in `memory`."
  def cgroup_controllers do
    case File.read(Path.join(cgroup_root() || "/nowhere", "cgroup.controllers")) do
      {:ok, text} -> String.split(text)
      {:error, _} -> []
    end
  end

  @doc "The directories of cgroups of a tree."
  def cgroups(tree), do: Path.wildcard("#{cgroup_root()}/net_runner_test/#{tree.mark}")

  def env(tree), do: [{"NET_RUNNER_MARK", tree.mark}]
  def command(tree, shape), do: ["python3", "-S", "-E", @script, "#{shape}", tree.ready_file]

  def ready?(tree), do: File.exists?(tree.ready_file)

  @doc "The processes of a tree, zombies too (a zombie has no environment, but its parent does)."
  def processes(tree) do
    for pid <- pids(), marked?(pid, tree.mark), do: pid
  end

  defp marked?(pid, mark, tries \\ 50) do
    case File.read("/proc/#{pid}/environ") do
      {:ok, ""} when tries > 0 -> in_exec?(pid) and marked_soon?(pid, mark, tries)
      {:ok, environ} -> String.contains?(environ, mark)
      {:error, _} -> false
    end
  end

  # In the middle of execve(2) a process has no environment yet. Zombies, kernel threads and helpers never have one.
  defp in_exec?(pid) do
    case stat(pid) do
      nil ->
        false

      %{state: state, parent: parent} ->
        state not in ["Z", "X"] and 2 not in [pid, parent] and comm(pid) != "net_runner_shep"
    end
  end

  defp marked_soon?(pid, mark, tries) do
    Process.sleep(2)
    marked?(pid, mark, tries - 1)
  end

  @doc """
  The helpers that this VM (or another) started: whoever runs the helper program, zombies too. A zombie
  whose parent is process 1 is not counted: process 1 reaps it when it likes.
  """
  def helpers(vm \\ String.to_integer(System.pid())) do
    # Looked up once: other VMs of the machine may have hundreds of helpers.
    all = all_helpers()
    sessions = sessions_of(vm, all)

    for pid <- all,
        %{session: session} = stat <- [stat(pid)],
        session in sessions or (first_of_namespace?(pid) and not others?(stat.parent, sessions)),
        not match?(%{state: "Z", parent: 1}, stat),
        do: pid
  end

  # Held by a helper of another VM: those of one VM all live in its sessions.
  defp others?(parent, sessions) do
    with %{session: session} <- stat(parent),
         "net_runner_shep" <- comm(parent),
         do: session not in sessions,
         else: (_ -> false)
  end

  # Process 1 of a PID namespace of a command is a copy of a helper, in a session of its own. (Other checkouts have theirs.)
  defp first_of_namespace?(pid) do
    helper = Application.app_dir(:net_runner, "priv/net_runner_shepherd")

    with {:ok, status} <- File.read("/proc/#{pid}/status"),
         true <- status =~ ~r/^NSpid:\t\d+\t1$/m do
      File.read_link("/proc/#{pid}/exe") in [{:ok, helper}, {:error, :eacces}]
    else
      _ -> false
    end
  end

  @doc """
  Whether only the guard, the launcher and its two spare shepherds (on Linux) are there, once those are let go
  that are kept for the next command.
  """
  def at_rest? do
    NetRunner.System.Native.let_idle_go()
    length(helpers()) == resting_helpers()
  end

  def resting_helpers, do: if(needs_linux(), do: 2, else: 4)

  # Helpers live in the session that their guard made, and only they.
  defp sessions_of(vm, all) when is_integer(vm), do: sessions(vm, all)
  defp sessions_of(%{sessions: sessions}, _all), do: sessions

  def sessions(vm, all \\ all_helpers()) do
    known = Process.get({:sessions, vm}, [])
    now = for pid <- all, parent(pid) == vm, do: pid
    all = Enum.uniq(now ++ known)
    Process.put({:sessions, vm}, all)
    all
  end

  defp all_helpers, do: for(pid <- pids(), comm(pid) == "net_runner_shep", do: pid)

  defp comm(pid) do
    case File.read("/proc/#{pid}/comm") do
      {:ok, comm} -> String.trim(comm)
      {:error, _} -> nil
    end
  end

  def stat(pid) do
    with {:ok, text} <- File.read("/proc/#{pid}/stat") do
      [state, parent, _group, session | _] =
        text |> String.split(") ") |> List.last() |> String.split()

      %{state: state, parent: String.to_integer(parent), session: String.to_integer(session)}
    else
      {:error, _} -> nil
    end
  end

  def parent(pid), do: stat(pid)[:parent]
  def shepherd(command), do: parent(NetRunner.Process.os_pid(command))
  def launcher(command), do: parent(shepherd(command))

  def await_stopped(pid), do: await(fn -> stat(pid)[:state] == "T" end)

  @doc "Waits until a process writes nothing more, and gives how many bytes it has written."
  def await_blocked(pid, last \\ -1) do
    [_, written] = Regex.run(~r/wchar: (\d+)/, File.read!("/proc/#{pid}/io"))
    Process.sleep(100)
    written = String.to_integer(written)
    if written == last, do: written, else: await_blocked(pid, written)
  end

  @doc "SIGKILL to helpers of ours, in one call."
  def kill(pids) do
    pids = pids |> List.wrap() |> Enum.map(&to_string/1)
    with {_, 0} <- System.cmd("kill", ["-KILL" | pids], stderr_to_stdout: true), do: :ok
  end

  @doc "Kills what is left of a tree, and waits until nothing is."
  def kill_all(tree) do
    await(fn ->
      left = processes(tree)
      if left != [], do: kill(left)
      left == []
    end)
  end

  @doc "The launcher that takes requests now; `nil` while there is none."
  def current_launcher do
    guard = :sys.get_state(NetRunner.System.Launcher).guard
    Enum.find(pids(), &(guard != nil and parent(&1) == guard and session_of?(&1, guard)))
  end

  defp session_of?(pid, guard) do
    match?(%{session: ^guard, state: state} when state != "Z", stat(pid))
  end

  def highest_fd do
    File.ls!("/proc/#{System.pid()}/fd") |> Enum.map(&String.to_integer/1) |> Enum.max()
  end

  @doc "How many descriptors this VM has, once those are let go that are kept for the next command."
  def fds do
    NetRunner.System.Native.let_idle_go()
    length(File.ls!("/proc/#{System.pid()}/fd"))
  end

  @doc "What the descriptors of this VM are open on, to be shown with a test that fails."
  def fd_targets do
    directory = "/proc/#{System.pid()}/fd"

    for number <- File.ls!(directory),
        {:ok, target} <- [File.read_link(Path.join(directory, number))],
        do: "#{number} #{target}"
  end

  def await(condition, timeout \\ 60_000, describe \\ fn -> nil end) do
    wait(condition, System.monotonic_time(:millisecond) + timeout, describe)
  end

  # /proc has no events; it is asked every few milliseconds.
  defp wait(condition, deadline, describe) do
    cond do
      condition.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        raise ExUnit.AssertionError, message: "not within the time: #{inspect(describe.())}"

      true ->
        Process.sleep(5)
        wait(condition, deadline, describe)
    end
  end

  defp pids do
    for name <- File.ls!("/proc"), {pid, ""} <- [Integer.parse(name)], do: pid
  end

  # --- another VM -----------------------------------------------------------------------------------

  @doc "A VM that runs a command of each tree, each ready."
  def start_vm(trees, kill_timeout) do
    commands =
      for {shape, tree} <- trees do
        {command(tree, shape),
         [env: env(tree), kill_timeout: kill_timeout] ++ options(tree, shape)}
      end

    start_vm_with(commands)
  end

  @doc "A VM that runs these commands, each of which has printed `ready`."
  def start_vm_with(commands) do
    run_in_vm("""
    commands = #{inspect(commands, limit: :infinity, printable_limit: :infinity)}
    for {[executable | args], options} <- commands do
      options = [owner: nil] ++ options
      {:ok, p} = NetRunner.Process.start(executable, args, options)
      {:ok, "ready\\n"} = NetRunner.Process.read(p)
    end
    """)
  end

  @doc "A VM that has run this code, and then waits to be ended."
  def run_in_vm(code) do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    #{code}
    IO.puts("all ready")
    case IO.gets("") do
      "halted\\n" -> System.halt(0)
      "stopped\\n" -> :init.stop()
      "dumped\\n" -> :erlang.halt(~c"dump")
    end
    Process.sleep(:infinity)
    """

    [executable | args] = elixir(code)
    env = for {name, value} <- elixir_env(), do: {to_charlist(name), to_charlist(value)}

    port =
      Port.open({:spawn_executable, System.find_executable(executable)}, [
        :binary,
        :exit_status,
        :use_stdio,
        # A crash dump is announced there.
        :stderr_to_stdout,
        args: args,
        env: env
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    await_ready(port, "")
    %{port: port, os_pid: os_pid, sessions: sessions(os_pid)}
  end

  @doc "The command line of another VM that runs this code and has NetRunner on its path."
  def elixir(code), do: ["elixir", "-pa", Application.app_dir(:net_runner, "ebin"), "-e", code]

  def elixir_env do
    [{"ERL_LIBS", Path.join(Mix.Project.build_path(), "lib")}, {"ERL_CRASH_DUMP", "/dev/null"}]
  end

  defp await_ready(port, so_far) do
    receive do
      {^port, {:data, data}} ->
        unless String.contains?(so_far <> data, "all ready"),
          do: await_ready(port, so_far <> data)

      {^port, {:exit_status, status}} ->
        raise "the VM ended with #{status}: #{so_far}"
    after
      60_000 -> raise "the VM is not ready: #{so_far}"
    end
  end

  def end_vm(vm, :killed) do
    :ok = kill(vm.os_pid)
    await_end(vm)
  end

  def end_vm(vm, how) do
    Port.command(vm.port, "#{how}\n")
    await_end(vm)
  end

  @doc "Ends a VM in which a tree of each shape runs, and waits until nothing of them, and no helper, is left."
  def end_vm_and_trees(vm, how, trees) do
    for {_, tree} <- trees, do: assert(processes(tree) != [])
    end_vm(vm, how)
    left = fn -> for {shape, tree} <- trees, processes(tree) != [], do: shape end
    await(fn -> left.() == [] end, 60_000, left)
    await(fn -> helpers(vm) == [] end)
  end

  defp await_end(%{port: port} = vm) do
    receive do
      {^port, {:exit_status, _}} -> :ok
      {^port, {:data, _}} -> await_end(vm)
    after
      60_000 -> raise "the VM does not end"
    end
  end
end
