defmodule Soak.Actions do
  @moduledoc false
  # What a worker does. Each action runs in a process of its own and checks what it gets; whatever it leaves running
  # then belongs to a dead owner. One that finds something wrong raises.

  alias NetRunner.Process, as: Command
  alias NetRunner.Daemon
  alias Soak.{Harm, Peer, Proc}

  @longest 60

  # --- run ------------------------------------------------------------------------------------------

  def perform(:run_true, x, _), do: {"", 0} = NetRunner.run(~w(true), options(x))

  def perform(:run_input, x, _) do
    bytes = bytes(x.size)
    {^bytes, 0} = NetRunner.run(~w(cat), options(x, input: bytes))
  end

  def perform(:run_enumerable, x, _) do
    input = Stream.map(1..(x.count * 10), &"#{&1}\n")
    expected = Enum.join(input)
    {^expected, 0} = NetRunner.run(~w(cat), options(x, input: input))
  end

  def perform(:run_function, x, _) do
    input = &Enum.into(Stream.map(1..x.count, fn n -> [to_string(n), " "] end), &1)
    expected = Enum.map_join(1..x.count, &"#{&1} ")
    {^expected, 0} = NetRunner.run(~w(cat), options(x, input: input))
  end

  def perform(:run_input_fails, x, _) do
    input = Stream.map(1..5, fn n -> if n == 5, do: raise("no input"), else: "x" end)

    try do
      NetRunner.run(~w(cat), options(x, input: input))
    rescue
      error in RuntimeError -> "no input" = error.message
    else
      result -> {:raised, _} = result
    end
  end

  def perform(:run_timeout, x, _) do
    script =
      Enum.at(
        [
          "exec sleep #{@longest}",
          "sleep #{@longest} & setsid sleep #{@longest} & wait",
          "trap '' TERM; sleep #{@longest}; sleep #{@longest}",
          "while :; do :; done"
        ],
        rem(x.choice, 4)
      )

    more = [timeout: x.pause, kill_timeout: x.pause]
    {:error, :timeout} = NetRunner.run(["sh", "-c", script], options(x, more))
  end

  def perform(:run_limit, x, _) do
    {:error, {:max_output_exceeded, partial}} =
      NetRunner.run(~w(yes), options(x, max_output_size: x.size))

    true = byte_size(partial) == x.size
  end

  def perform(:run_refused, x, _) do
    {command, more, expected} =
      Enum.at(
        [
          {~w(no-such-program), [], :enoent},
          {~w(true), [cd: "/nowhere"], {:cd, :enoent}},
          {~w(true), [stdin: {:file, "/nowhere"}], {:stdin, :enoent}},
          {~w(/etc/passwd), [], :eacces},
          {~w(true), [user: "no-such-user"], {:user, :enoent}},
          {~w(true), [stdout: {:file, "/nowhere/at/all"}], {:stdout, :enoent}}
        ],
        rem(x.choice, 6)
      )

    {:error, ^expected} = NetRunner.run(command, options(x, more))
  end

  def perform(:run_status, x, _) do
    number = Enum.at([1, 2, 3, 9, 15], rem(x.choice, 5))

    {script, status} =
      if rem(x.count, 2) == 0, do: {"exit", number}, else: {"kill -#{number} $$", 128 + number}

    script = if status == number, do: "exit #{number}", else: script
    {"", ^status} = NetRunner.run(["sh", "-c", script], options(x))
  end

  def perform(:run_wide, x, _) do
    count = 2_000 * x.count
    arguments = List.duplicate("a", count)
    expected = "#{count}\n"
    {^expected, 0} = NetRunner.run(["sh", "-c", "echo $#", "sh" | arguments], options(x))
  end

  def perform(:run_options, x, _) do
    {script, more, expected} =
      Enum.at(
        [
          {"pwd", [cd: "/usr"], "/usr\n"},
          {"umask", [umask: 0o077], "0077\n"},
          {"nice", [nice: 15], "15\n"},
          {"ulimit -n", [rlimits: [nofile: 64, core: 0]], "64\n"},
          {"echo $0", [arg0: "soak"], "soak\n"},
          {"echo ${HOME-nowhere}", [clear_env: true], "nowhere\n"},
          {"echo out; echo err >&2", [stderr: :redirect], "out\nerr\n"},
          {"grep -c 'NoNewPrivs.*1' /proc/self/status", [no_new_privs: true], "1\n"}
        ],
        rem(x.choice, 8)
      )

    {^expected, 0} = NetRunner.run(["sh", "-c", script], options(x, more))
  end

  def perform(:run_files, x, %{directory: directory}) do
    file = Path.join(directory, "#{x.number}")
    lines = x.count * 100
    {"", 0} = NetRunner.run(["seq", "#{lines}"], options(x, stdout: {:file, file}))
    more = [stdin: {:file, file}, stderr: {:append, file}]
    script = "wc -l; echo more >&2"
    expected = "#{lines}\n"
    {^expected, 0} = NetRunner.run(["sh", "-c", script], options(x, more))
    ["more", ""] = file |> File.read!() |> String.split("\n") |> Enum.take(-2)
    File.rm!(file)
  end

  def perform(:run_user, x, %{root?: true}) do
    more = [user: 65_534, group: 65_534]
    {"65534\n", 0} = NetRunner.run(~w(id -u), options(x, more))
  end

  def perform(:run_user, _, _), do: :not_possible

  def perform(:run_cgroup, _, %{cgroup: nil}), do: :not_possible

  def perform(:run_cgroup, x, %{cgroup: root}) do
    path = "net_runner_soak_#{System.pid()}/#{x.number}"
    script = "sleep #{@longest} & setsid sleep #{@longest} & cat /proc/self/cgroup"

    more =
      if rem(x.choice, 2) == 0,
        do: [],
        else: [stdin: :null, timeout: x.pause + 20, kill_timeout: 10]

    script = if more == [], do: script, else: script <> "; wait"

    case NetRunner.run(["sh", "-c", script], options(x, [cgroup_path: path] ++ more)) do
      {output, 0} when more == [] -> true = output =~ path
      {:error, :timeout} when more != [] -> :ok
    end

    # Where its shepherd was killed just then, the VM removes it, and the result does not wait for that.
    :ok = Proc.await(fn -> not File.exists?(Path.join(root, path)) end)
  end

  def perform(:run_leftovers, x, _) do
    script =
      "for i in $(seq #{x.count}); do sleep #{@longest} & setsid sleep #{@longest} & done; echo started"

    {"started\n", 0} = NetRunner.run(["sh", "-c", script], options(x))
    [] = Proc.marked(mark(x))
  end

  def perform(:run_leave, x, _) do
    script = "(sleep 0.#{x.pause}; exit 0) & echo early"
    more = [leftovers: :leave, output_grace: x.pause]
    {"early\n", 0} = NetRunner.run(["sh", "-c", script], options(x, more))
  end

  def perform(:cmd, x, _) do
    more = [env: [{"NET_RUNNER_MARK", mark(x)}]]

    case rem(x.choice, 3) do
      0 ->
        {"out\nerr\n", 3} =
          NetRunner.cmd(
            "sh",
            ["-c", "echo out; echo err >&2; exit 3"],
            [stderr_to_stdout: true] ++ more
          )

      1 ->
        {["1", "2", "3"], 0} = NetRunner.cmd("seq", ["3"], [into: [], lines: 64] ++ more)

      2 ->
        sink = %NetRunner.Sink{
          fun: fn
            _, {:cont, _} -> raise "sink"
            _, _ -> :ok
          end
        }

        try do
          NetRunner.cmd("yes", [], [into: sink] ++ more)
        rescue
          error in RuntimeError -> "sink" = error.message
        end
    end
  end

  # --- streams and pipelines --------------------------------------------------------------------------

  def perform(:stream_all, x, _) do
    command = ["head", "-c", "#{x.size}", "/dev/zero"]
    size = command |> NetRunner.stream!(options(x)) |> Enum.reduce(0, &(byte_size(&1) + &2))
    true = size == x.size
  end

  def perform(:stream_early, x, _) do
    chunks = ~w(yes) |> NetRunner.stream!(options(x)) |> Enum.take(x.count)
    true = length(chunks) == x.count
  end

  def perform(:stream_lines, x, _) do
    count = rem(x.size, 20_000)
    lines = ["seq", "#{count}"] |> NetRunner.stream!(options(x, lines: :trim))
    true = Enum.count(lines) == count
  end

  def perform(:stream_crash, x, _) do
    {crash, reason} =
      if rem(x.choice, 2) == 0,
        do: {fn -> exit(:enough) end, :enough},
        else: {fn -> Process.exit(self(), :kill) end, :killed}

    {_, monitor} =
      spawn_monitor(fn ->
        ~w(yes) |> NetRunner.stream!(options(x)) |> Enum.each(fn _ -> crash.() end)
      end)

    ^reason = down(monitor)
  end

  def perform(:stream_tagged, x, _) do
    command = ["sh", "-c", "echo out; echo err >&2; exit #{x.count}"]
    elements = command |> NetRunner.stream!(options(x, tagged: true)) |> Enum.to_list()
    {:exit, status} = List.last(elements)
    true = status == x.count
    true = Enum.sort(Enum.drop(elements, -1)) == [{:stderr, "err\n"}, {:stdout, "out\n"}]
  end

  def perform(:stream_abandoned, x, _) do
    {_, monitor} = spawn_monitor(fn -> {:ok, _stream} = NetRunner.stream(~w(yes), options(x)) end)

    :normal = down(monitor)
  end

  def perform(:pipeline, x, _) do
    commands = [["seq", "#{x.count * 1_000}"], ~w(grep 7), ~w(cat), ~w(wc -l)]
    expected = Enum.count(1..(x.count * 1_000), &(Integer.to_string(&1) =~ "7"))
    {output, [0, 0, 0, 0]} = NetRunner.pipeline(commands, options(x))
    ^expected = output |> String.trim() |> String.to_integer()
  end

  def perform(:pipeline_early, x, _) do
    lines = [~w(yes), ~w(cat)] |> NetRunner.pipeline_stream!(options(x, lines: :trim))
    true = Enum.take(lines, x.count) == List.duplicate("y", x.count)
  end

  def perform(:pipeline_refused, x, _) do
    {:error, {:command, 1, :enoent}} =
      NetRunner.pipeline([~w(yes), ~w(no-such-program), ~w(cat)], options(x))
  end

  # --- processes ------------------------------------------------------------------------------------

  def perform(:process_talk, x, _) do
    p = start!("cat", [], options(x))

    for n <- 1..x.count do
      line = "#{n} #{x.number}\n"
      :ok = Command.write(p, line)
      ^line = read_bytes(p, byte_size(line), "")
    end

    :ok = Command.close_stdin(p)
    :eof = Command.read(p)
    {:ok, 0} = Command.await_exit(p)
    %Command.Stats{exit_status: 0} = Command.stats(p)
    if rem(x.choice, 2) == 0, do: :ok = Command.stop(p)
  end

  def perform(:process_parked, x, _) do
    p = start!("cat", [], options(x))
    readers = for _ <- 1..x.count, do: spawn_monitor(fn -> Command.read(p) end)
    waiter = spawn_monitor(fn -> Command.await_exit(p) end)
    Process.sleep(x.pause)
    {dying, living} = Enum.split(readers, div(x.count, 2))
    for {pid, _} <- dying, do: Process.exit(pid, :kill)
    for {_, monitor} <- dying, do: down(monitor)
    :ok = Command.stop(p)
    for {_, monitor} <- [waiter | living], do: down(monitor)
  end

  def perform(:process_signals, x, _) do
    signal = Enum.at([:sigterm, :sigint, :sigkill, :sighup, :sigusr1], rem(x.choice, 5))
    number = NetRunner.Signal.resolve!(signal)
    p = start!("sleep", ["#{@longest}"], options(x))
    :ok = Command.kill(p, signal)
    {:ok, status} = Command.await_exit(p)
    true = status == 128 + number
    {:error, :esrch} = Command.kill(p, :sigterm)
  end

  def perform(:process_unread, x, _) do
    p = start!("yes", [], options(x))
    Process.sleep(x.pause)
    {:ok, _} = Command.read(p, x.size)
    :ok = Command.stop(p)
  end

  def perform(:process_outputs, x, _) do
    script = "echo out; echo err >&2; head -c #{x.size} /dev/zero >&2"
    p = start!("sh", ["-c", script], options(x, stderr: :pipe))
    true = drain(p, 0) == x.size + 8
    {:ok, 0} = Command.await_exit(p)
  end

  # A writer that waits for room is killed; another goes on.
  def perform(:process_writer_crash, x, _) do
    p = start!("sh", ["-c", "sleep 0.1; exec cat >/dev/null"], options(x))
    {writer, monitor} = spawn_monitor(fn -> Command.write(p, bytes(4_000_000)) end)
    Process.sleep(x.pause)
    Process.exit(writer, :kill)
    down(monitor)
    :ok = Command.write(p, bytes(x.size))
    :ok = Command.stop(p)
  end

  def perform(:process_listing, x, _) do
    p = start!("sleep", ["#{@longest}"], options(x))
    os_pid = Command.os_pid(p)
    %{os_pid: ^os_pid} = Enum.find(NetRunner.list(), &(&1.pid == p))
    %{os_pid: ^os_pid} = Command.info(p)
    true = Command.alive?(p)
    :ok = Command.stop(p)
    nil = Enum.find(NetRunner.list(), &(&1.pid == p))
  end

  # --- crashes ----------------------------------------------------------------------------------------

  def perform(:server_crash, x, _) do
    {p, pids} = start_tree!(x)
    Process.exit(p, :kill)
    gone!(x, pids)
  end

  def perform(:owner_crash, x, _) do
    me = self()

    {owner, monitor} =
      spawn_monitor(fn ->
        send(me, {:tree, start_tree!(x)})
        Process.sleep(:infinity)
      end)

    receive do
      {:tree, {_, pids}} ->
        Process.exit(owner, :kill)
        :killed = down(monitor)
        gone!(x, pids)

      {:DOWN, ^monitor, :process, _, {error, stack}} ->
        :erlang.raise(:error, error, stack)
    end
  end

  # If guard and launcher died too, nobody would be left to end the tree.
  def perform(:shepherd_crash, x, %{harm: harm}) do
    Harm.calm(harm, fn ->
      {p, pids} = start_tree!(x)
      :ok = Harm.kill(Proc.parent(Command.os_pid(p)))
      {:error, :shepherd_died} = Command.await_exit(p)
      gone!(x, pids)
    end)
  end

  # The program shapes of the fault matrix.
  def perform(:shape_crash, x, %{directory: directory}) do
    shapes =
      ~w(background_children setsid_child daemon ignores_signals deep holds_stdout stopped)a

    tree = %NetRunner.Guarantees.Tree{ready_file: Path.join(directory, "ready-#{x.number}")}
    shape = Enum.at(shapes, rem(x.choice, length(shapes)))
    [executable | arguments] = NetRunner.Guarantees.Tree.command(tree, shape)
    p = start!(executable, arguments, options(x, kill_timeout: x.pause))
    {:ok, "ready\n"} = Command.read(p)
    os_pid = Command.os_pid(p)
    if rem(x.count, 2) == 0, do: Process.exit(p, :kill), else: Command.stop(p)
    gone!(x, [os_pid])
    File.rm(tree.ready_file)
  end

  # --- terminals --------------------------------------------------------------------------------------

  def perform(:pty_talk, x, _) do
    p = start!("cat", [], options(x, pty: [rows: 10, cols: 40, echo: false]))

    for n <- 1..x.count do
      :ok = Command.write(p, "#{n}\n")
      expected = "#{n}\r\n"
      ^expected = read_bytes(p, byte_size(expected), "")
    end

    :ok = Command.set_window_size(p, 20 + x.count, 80)
    :ok = Command.close_stdin(p)
    :eof = Command.read(p)
    {:ok, 0} = Command.await_exit(p)
  end

  def perform(:pty_signal, x, _) do
    script = "trap 'exit 7' INT; sleep #{@longest} & echo ready; wait"
    p = start!("sh", ["-c", script], options(x, pty: [echo: false]))
    "ready\r\n" = read_bytes(p, 7, "")

    if rem(x.choice, 2) == 0 do
      :ok = Command.write(p, <<3>>)
      {:ok, 7} = Command.await_exit(p)
    else
      :ok = Command.stop(p)
    end
  end

  # --- daemons --------------------------------------------------------------------------------------

  def perform(:daemon, x, _) do
    daemon = daemon!(x, "echo ready; exec cat", ready: {:output, ~r/ready/})
    :ok = Daemon.write(daemon, "hello\n")
    true = Daemon.alive?(daemon)
    :ok = GenServer.stop(daemon)
  end

  def perform(:daemon_exit, x, _) do
    Process.flag(:trap_exit, true)
    daemon = daemon!(x, "echo started; exit #{x.count}", on_output: fn _, _ -> :ok end)
    reason = {:exit_status, x.count}
    # Another one may be that of a crash.
    ^reason = receive(do: ({:EXIT, ^daemon, reason} -> reason))
  end

  def perform(:daemon_crash, x, _) do
    Process.flag(:trap_exit, true)
    daemon = daemon!(x, "sleep #{@longest} & echo ready; exec sleep #{@longest}", [])
    os_pid = Daemon.os_pid(daemon)
    Process.exit(daemon, :kill)
    receive do: ({:EXIT, ^daemon, :killed} -> :ok)
    gone!(x, [os_pid])
  end

  # --- another node -----------------------------------------------------------------------------------

  def perform(:peer_run, x, %{peer: peer}) do
    bytes = bytes(rem(x.size, 65_536))

    Peer.hold(peer, fn %{node: node} ->
      {^bytes, 0} = NetRunner.run(~w(cat), options(x, node: node, input: bytes))
    end)
  end

  def perform(:peer_process, x, %{peer: peer}) do
    Peer.hold(peer, fn %{node: node} ->
      p = start!("cat", [], options(x, node: node))
      :ok = Command.write(p, "hello\n")
      {:ok, "hello\n"} = Command.read(p)
      :ok = Command.close_stdin(p)
      {:ok, 0} = Command.await_exit(p)
      if rem(x.choice, 2) == 0, do: :ok = Command.stop(p)
    end)
  end

  def perform(:peer_caller_crash, x, %{peer: peer} = context) do
    Peer.hold(peer, fn %{node: node} ->
      perform(:owner_crash, Map.put(x, :node, node), context)
    end)
  end

  # The connection goes, with calls that wait: all of them hear of it, and the other node ends the commands. What that
  # answers by a new connection may be there first.
  def perform(:peer_cut, x, %{peer: peer}) do
    Peer.hold(peer, fn %{node: node} = peer ->
      {callers, pids} = waiting_callers(x, node)
      true = Node.disconnect(node)

      for monitor <- callers do
        {:shutdown, {:error, reason}} = down(monitor)
        true = reason in [{:node, :disconnected}, :closed]
      end

      gone!(x, pids)
      Peer.connect(peer)
    end)
  end

  # The other node dies; its shepherds end what it ran.
  def perform(:peer_crash, x, %{peer: peer}) do
    Peer.replace(peer, fn %{node: node, os_pid: os_pid} ->
      {callers, pids} = waiting_callers(x, node)
      :ok = Harm.kill(os_pid)
      for monitor <- callers, do: {:shutdown, {:error, {:node, :disconnected}}} = down(monitor)
      gone!(x, pids)
    end)
  end

  # --- storms -----------------------------------------------------------------------------------------

  def perform(storm, x, %{harm: harm}), do: Harm.storm(harm, storm, x)

  # --- what actions share -----------------------------------------------------------------------------

  @doc "What the environment of each process of an action says."
  def mark(x), do: "#{mark_of_all()}-#{x.number}-"
  def mark_of_all, do: "net-runner-soak-#{System.pid()}"

  defp options(x, more \\ []), do: [env: [{"NET_RUNNER_MARK", mark(x)}]] ++ more

  defp start!(executable, arguments, options) do
    {:ok, p} = Command.start(executable, arguments, options)
    p
  end

  # Children in its group, in a session of their own, and one whose parent is gone.
  @tree """
  sleep 60 & a=$!
  setsid sh -c 'trap "" TERM; echo $$; exec sleep 60' & b=$!
  (sh -c 'echo $$; exec sleep 60' &)
  echo $$ $a $b done
  wait
  """

  defp start_tree!(x) do
    node = if x[:node], do: [node: x.node], else: []
    p = start!("sh", ["-c", @tree], options(x, [kill_timeout: x.pause] ++ node))
    {p, p |> read_tree("") |> String.split() |> Enum.map(&String.to_integer/1)}
  end

  # The children print their numbers when they like.
  defp read_tree(p, so_far) do
    if so_far =~ "done\n" and length(String.split(so_far, "\n", trim: true)) == 3 do
      String.replace(so_far, "done", "")
    else
      {:ok, bytes} = Command.read(p)
      read_tree(p, so_far <> bytes)
    end
  end

  defp gone!(x, pids) do
    mark = mark(x)
    :ok = Proc.await(fn -> not Enum.any?(pids, &Proc.marked?(&1, mark)) end)
  end

  defp waiting_callers(x, node) do
    me = self()

    callers =
      for _ <- 1..2 do
        {_, monitor} =
          spawn_monitor(fn ->
            {p, pids} = start_tree!(Map.put(x, :node, node))
            send(me, {:tree, pids})
            exit({:shutdown, Command.await_exit(p)})
          end)

        monitor
      end

    pids =
      for monitor <- callers do
        receive do
          {:tree, pids} -> pids
          {:DOWN, ^monitor, :process, _, {error, stack}} -> :erlang.raise(:error, error, stack)
        end
      end

    {callers, List.flatten(pids)}
  end

  defp daemon!(x, script, more) do
    options = [cmd: "sh", args: ["-c", script], process_opts: options(x, kill_timeout: 1_000)]
    {:ok, daemon} = Daemon.start_link(options ++ more)
    daemon
  end

  defp bytes(size),
    do: :binary.copy("0123456789abcdef", div(size, 16) + 1) |> binary_part(0, size)

  defp read_bytes(_p, size, so_far) when byte_size(so_far) >= size, do: so_far

  defp read_bytes(p, size, so_far) do
    {:ok, bytes} = Command.read(p)
    read_bytes(p, size, so_far <> bytes)
  end

  defp drain(p, size) do
    case Command.read_any(p) do
      {:ok, {_, bytes}} -> drain(p, size + byte_size(bytes))
      :eof -> size
    end
  end

  defp down(monitor) do
    receive do
      {:DOWN, ^monitor, :process, _, reason} -> reason
    end
  end
end
