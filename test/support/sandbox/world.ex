defmodule NetRunner.Sandbox.World do
  @moduledoc false
  # What test/guarantees/sandbox_test.exs needs around an attack: who attacks, what there is to attack, and whether it was reached.

  alias NetRunner.Guarantees.{Nodes, Tree}

  @source Path.expand("../../guarantees/sandbox", __DIR__)
  @nobody 65534

  @doc """
  Who attacks: `:root`; `:user`, whose VM is an ordinary user's; and `:user_of_root`, an ordinary user in a VM of root's. Only the
  second where the tests run as an ordinary user.
  """
  def actors, do: if(Tree.root?(), do: ~w(root user_of_root user)a, else: [:user])

  @doc "A directory with the attack program, and the actor, once for each module of tests and actor."
  def new(name) do
    # Where a private /tmp hides it.
    directory = Path.join("/tmp", NetRunner.Temporary.name("sandbox"))
    File.mkdir!(directory)
    File.chmod!(directory, 0o755)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(directory) end)
    bin = Path.join(directory, "bin")
    File.mkdir!(bin)
    world = %{directory: directory, bin: bin, program: compile(bin), root?: Tree.root?()}
    Map.put(world, :actor, actor(name, world.root?))
  end

  defp compile(bin) do
    program = Path.join(bin, "attack")
    sources = Path.wildcard(Path.join(@source, "*.c"))
    {_, 0} = System.cmd("cc", ["-O0", "-w", "-o", program | sources])
    File.chmod!(program, 0o755)
    program
  end

  defp actor(:root, true), do: %{name: :root, uid: 0, user: [], call: &apply/3, vm: System.pid()}

  defp actor(:user_of_root, true) do
    %{name: :user_of_root, uid: @nobody, user: [user: "nobody"], call: &apply/3, vm: System.pid()}
  end

  defp actor(:user, true) do
    # Another one than in any other VM: some attacks are on all processes of the user.
    uid = 100_000 + rem(String.to_integer(System.pid()), 60_000)
    peer = user_vm(uid)
    call = fn module, function, args -> Nodes.call(peer, module, function, args) end
    %{name: :user, uid: uid, user: [], call: call, vm: call.(System, :pid, [])}
  end

  defp actor(:user, false) do
    {uid, 0} = System.cmd("id", ["-u"])
    uid = uid |> String.trim() |> String.to_integer()
    %{name: :user, uid: uid, user: [], call: &apply/3, vm: System.pid()}
  end

  # No node of a network: it is controlled over its standard input.
  defp user_vm(uid) do
    erl = System.find_executable("erl")
    become = ~w(--reuid=#{uid} --regid=#{uid} --clear-groups #{erl})

    {:ok, peer, _} =
      :peer.start_link(%{
        connection: :standard_io,
        exec: {to_charlist(System.find_executable("setpriv")), Enum.map(become, &to_charlist/1)},
        args: [~c"-pa" | :code.get_path()],
        # The home of the user who runs the tests may be closed to others.
        env: [{~c"HOME", ~c"/"}],
        wait_boot: 60_000
      })

    {:ok, _} = Nodes.call(peer, :application, :ensure_all_started, [:elixir])
    Nodes.start_net_runner(peer)
    peer
  end

  @doc "Files to attack, and what else is needed (`:victim`, `:terminal`, `:tcp`, …), for one attack."
  def fixture(world, needs) do
    number = System.unique_integer([:positive])
    mark = "mark-#{System.pid()}-#{number}"
    directory = Path.join(world.directory, mark)
    [work, outside] = for name <- ~w(work outside), do: Path.join(directory, name)
    directories = [directory, work, outside, Path.join(outside, "empty")]
    Enum.each(directories, &File.mkdir!/1)

    secret = "SECRET #{mark}"
    [target | _] = files = for name <- ~w(target secret), do: Path.join(outside, name)
    File.write!(target, "untouched\n")
    File.write!(Path.join(outside, "secret"), secret <> "\n")
    File.write!(Path.join(work, "mine"), "mine\n")
    if world.root?, do: own(directories ++ files ++ [Path.join(work, "mine")], world.actor.uid)
    # A change of the owner clears the set-user-ID bit.
    File.chmod!(target, 0o4744)

    world
    |> Map.merge(%{number: number, mark: mark, work: work, outside: outside, secret: secret})
    |> Map.put(:listening, [])
    |> then(&Enum.reduce(needs, &1, fn need, ctx -> need(need, ctx) end))
  end

  defp own(paths, uid) do
    for path <- paths do
      :ok = File.chown(path, uid)
      :ok = File.chgrp(path, uid)
    end
  end

  @doc "Ends what `fixture/2` started."
  def clear(ctx) do
    with %{victim: %{process: p}} <- ctx do
      :ok = NetRunner.Process.close_stdin(p)
      {:ok, _} = NetRunner.Process.await_exit(p, 60_000)
      :ok = NetRunner.Process.stop(p)
    end

    with %{helper: p} <- ctx, do: :ok = NetRunner.Process.stop(p)
    for socket <- ctx.listening, do: :inet.close(socket)
    with %{key: key} <- ctx, do: look(ctx, ["unlink_key", key])
    if mounted?(ctx.work), do: {_, 0} = System.cmd("umount", ["-l", ctx.work])
    File.rm_rf!(Path.dirname(ctx.work))
  end

  @doc "Runs the attack program as the actor: its output, or what else came of it, as text."
  def attack(ctx, args, options \\ []) do
    options = [timeout: 60_000, cd: ctx.work] ++ ctx.actor.user ++ options

    case ctx.actor.call.(NetRunner, :run, [[ctx.program | args], options]) do
      {output, 0} -> String.replace(output, "\r\n", "\n")
      other -> inspect(other)
    end
  end

  @doc "A sandbox in which the attack program runs and its directory can be written to, with more paths and keys."
  def sandbox(ctx, paths, keys) do
    allowed = [read: [:system], write: [ctx.work], exec: [:system, ctx.bin]]
    Keyword.merge(allowed, paths, fn _, ours, more -> ours ++ more end) ++ keys
  end

  @doc "Runs the attack program as the actor, without any sandbox: to look at what an attack has done."
  def look(ctx, args), do: attack(ctx, args)

  # --- who is attacked ------------------------------------------------------------------------------

  defp need(:victim, ctx), do: need_victim(ctx, [])
  defp need(:terminal, ctx), do: need_victim(ctx, pty: [echo: false])

  defp need(:free_port, ctx), do: Map.put(ctx, :address, "#{Nodes.free_port()}")
  defp need(:tcp, ctx), do: listen(ctx, ip: {127, 0, 0, 1})
  defp need(:tcp6, ctx), do: listen(ctx, [:inet6, ip: {0, 0, 0, 0, 0, 0, 0, 1}])
  defp need(:local, ctx), do: listen(ctx, ifaddr: {:local, Path.join(ctx.outside, "socket")})
  defp need(:abstract, ctx), do: listen(ctx, ifaddr: {:local, <<0, ctx.mark::binary>>})
  defp need(:udp, ctx), do: receive_at(ctx, ip: {127, 0, 0, 1})

  defp need(:datagram, ctx),
    do: receive_at(ctx, ifaddr: {:local, Path.join(ctx.outside, "socket")})

  # Somebody who gives a file to everybody that can connect.
  defp need(:giver, ctx) do
    socket = Path.join(ctx.outside, "giver")
    args = ["give_file", socket, Path.join(ctx.outside, "secret")]
    {:ok, p} = NetRunner.Process.start(ctx.program, args)
    {:ok, "done\n"} = NetRunner.Process.read(p)
    Map.merge(ctx, %{helper: p, giver: socket})
  end

  # A key of the actor's, or one that it may make: users have room for few.
  defp need(:keyring, ctx), do: Map.put(ctx, :key, ctx.mark)

  defp need(:key, ctx) do
    "done\n" = look(ctx, ["add_key", ctx.mark])
    need(:keyring, ctx)
  end

  defp need_victim(ctx, options) do
    env = [{"NR_SECRET", ctx.secret}]
    user = if ctx.root?, do: [user: ctx.actor.uid, group: ctx.actor.uid], else: []
    args = ["victim", Path.join(ctx.outside, "secret"), "/" <> ctx.mark]
    options = [cd: ctx.outside, env: env, leftovers: :kill] ++ user ++ options
    {:ok, p} = NetRunner.Process.start(ctx.program, args, options)
    [pid, address, fd, memory, queue, semaphore, tty] = introduction(p)
    found = %{process: p, pid: pid, address: address, fd: fd, tty: tty}
    ipc = %{memory: memory, queue: queue, semaphore: semaphore, posix: "/" <> ctx.mark}
    Map.put(ctx, :victim, Map.merge(found, ipc))
  end

  # Another actor's signal to everybody may have come before.
  defp introduction(victim) do
    {:ok, {line, _}} = NetRunner.Process.read_until(victim, "\n", timeout: 60_000)

    case String.split(line) do
      ["signal", _] -> introduction(victim)
      words -> words
    end
  end

  defp listen(ctx, options) do
    {:ok, socket} = :gen_tcp.listen(0, [:binary, active: false, backlog: 50] ++ options)
    {:ok, address} = :inet.sockname(socket)
    open(options)
    reach = fn -> heard_by_stream(socket, options) end
    heard(ctx, socket, address, reach)
  end

  defp receive_at(ctx, options) do
    {:ok, socket} = :gen_udp.open(0, [:binary, active: false] ++ options)
    {:ok, address} = :inet.sockname(socket)
    open(options)
    reach = fn -> heard_by_datagram(socket, address) end
    heard(ctx, socket, address, reach)
  end

  defp open(options) do
    with {:local, <<"/", _::binary>> = path} <- options[:ifaddr], do: File.chmod!(path, 0o777)
  end

  defp heard(ctx, socket, address, reach) do
    name =
      case address do
        {:local, <<0, name::binary>>} -> "@" <> name
        {:local, path} -> path
        {_, port} -> "#{port}"
      end

    Map.merge(ctx, %{address: name, heard: reach, listening: [socket | ctx.listening]})
  end

  # Whoever came first is served first: so nobody came before if it is us, and there is nothing to wait for.
  defp heard_by_stream(socket, options) do
    {:ok, to} = :inet.sockname(socket)
    {to, port} = with {:local, _} <- to, do: {to, 0}
    family = for :inet6 <- options, do: :inet6
    {:ok, ours} = :gen_tcp.connect(to, port, [:binary, active: false] ++ family)
    :ok = :gen_tcp.send(ours, "ourselves")
    {:ok, first} = :gen_tcp.accept(socket, 60_000)
    heard = :gen_tcp.recv(first, 0, 60_000)
    for it <- [ours, first], do: :gen_tcp.close(it)
    heard == {:ok, "intruder"}
  end

  defp heard_by_datagram(socket, address) do
    family = if match?({:local, _}, address), do: [:local], else: []
    {:ok, ours} = :gen_udp.open(0, [:binary, active: false] ++ family)
    {to, port} = with {:local, _} <- address, do: {address, 0}
    :ok = :gen_udp.send(ours, to, port, "ourselves")
    {:ok, {_, _, heard}} = :gen_udp.recv(socket, 0, 60_000)
    :gen_udp.close(ours)
    heard == "intruder"
  end

  # --- whether it was reached -----------------------------------------------------------------------

  @doc "The signals that the victim has got. One of ours, which the kernel delivers last, says that there are no more."
  def signals(%{victim: %{process: p}}) do
    :ok = NetRunner.Process.kill(p, :sigwinch)
    {:ok, {before, _}} = NetRunner.Process.read_until(p, "signal 28", timeout: 60_000)
    String.split(before, "\n", trim: true)
  end

  @doc "Whether a process has the limit that the attack sets."
  def limited?(pid, limit) do
    File.read!("/proc/#{pid}/limits") =~ ~r/^Max msgqueue size +#{limit} /m
  end

  @doc "A field of /proc/PID/stat by its number in proc(5)."
  def stat(pid, number) do
    [_, fields] = Regex.run(~r/\) (.*)/, File.read!("/proc/#{pid}/stat"))
    fields |> String.split() |> Enum.at(number - 3)
  end

  @doc "What is left of the System V and POSIX IPC of the victim."
  def ipc(%{victim: v} = ctx), do: look(ctx, ["ask_ipc", v.memory, v.queue, v.semaphore, v.posix])

  @doc "What is mounted in the namespace of the VM; not what another run of the tests has mounted."
  def mounts do
    "/proc/self/mountinfo"
    |> File.read!()
    |> String.split("\n")
    |> Enum.reject(&NetRunner.Temporary.another_run?/1)
  end

  @doc "Whether something is mounted there, in the namespace of the VM."
  def mounted?(path), do: File.read!("/proc/self/mountinfo") =~ " #{path} "

  def untouched?(ctx) do
    path = Path.join(ctx.outside, "target")
    File.read(path) == {:ok, "untouched\n"}
  end
end
