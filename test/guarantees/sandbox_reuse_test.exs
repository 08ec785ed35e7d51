defmodule NetRunner.Guarantees.SandboxReuseTest do
  # A shepherd that has served a sandboxed command keeps what is alike for the next one with the same sandbox. Nobody else
  # gets it, and it never allows or refuses what the sandbox does not say.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.System.Native

  @moduletag Tree.linux_only()
  @needs_root if Tree.root?(), do: nil, else: "needs root, to mount"

  setup do
    work = NetRunner.Temporary.path("kept")

    File.mkdir_p!(Path.join(work, "a"))
    on_exit(fn -> File.rm_rf!(work) end)
    Native.let_idle_go()
    {:ok, work: work, a: Path.join(work, "a")}
  end

  @show "grep -E '^(Seccomp|NoNewPrivs|Cap)' /proc/self/status"

  # Their numbers are more than of the shepherds that are kept.
  defp kinds do
    sandboxes =
      for network <- [false, :unix, true, [connect: [443]], [bind: [0]]],
          given_up <- [[], [:system_calls], [:capabilities]],
          do: [sandbox: [read: [:system, "/proc"], network: network, without: given_up]]

    own = [sandbox: [read: [:system], processes: :own]]
    private = [sandbox: [read: [:system, "/proc"], tmp: :private, network: :loopback]]
    [[], own, private] ++ sandboxes
  end

  test "no command gets another's filter, capabilities or privileges, whoever was before it" do
    seen = Map.new(kinds(), &{&1, show(&1)})
    assert seen[[]] =~ ~r/^Seccomp:\t0$/m and seen[[]] =~ ~r/^NoNewPrivs:\t0$/m
    for {[{:sandbox, _}], status} <- seen, do: assert(status =~ ~r/^NoNewPrivs:\t1$/m)

    :rand.seed(:exsss, 14)

    for _ <- 1..4, kind <- Enum.shuffle(kinds()) do
      assert {kind, show(kind)} == {kind, seen[kind]}
    end
  end

  defp show(options) do
    {status, 0} = NetRunner.run(["sh", "-c", @show], options)
    status
  end

  test "one after the other with the same sandbox has the same shepherd, and others have another" do
    shepherd = fn options ->
      {pid, 0} = NetRunner.run(["sh", "-c", "echo $PPID"], options)
      pid
    end

    sandbox = [sandbox: [read: [:system], network: false]]
    first = shepherd.(sandbox)
    for _ <- 1..20, do: assert(shepherd.(sandbox) == first)
    plain = shepherd.([])
    assert plain != first
    assert shepherd.(sandbox: [read: [:system], network: :unix]) != first
    assert shepherd.(sandbox) == first
  end

  test "of more than eight idle shepherds, the one that has waited longest ends" do
    {oldest, 0} =
      NetRunner.run(["sh", "-c", "echo $PPID"], sandbox: [read: [:system], network: false])

    cats = for _ <- 1..8, {:ok, p} = Command.start("cat", []), do: p
    for p <- cats, do: :ok = Command.close_stdin(p)
    for p <- cats, do: {:ok, 0} = Command.await_exit(p)
    for p <- cats, do: :ok = Command.stop(p)
    Tree.await(fn -> not File.exists?("/proc/#{String.trim(oldest)}") end)
  end

  defp cat(path, allowed, keys \\ []),
    do:
      NetRunner.run(["cat", path],
        sandbox: [read: [:system, allowed]] ++ keys,
        stderr: :disabled
      )

  # With the same ruleset again.
  for {name, keys} <- [files: [], mounts: [processes: :own]] do
    @keys keys

    test "a directory that took the place of another is allowed, and that one no more (#{name})",
         %{a: a} do
      File.write!(Path.join(a, "x"), "old")
      for _ <- 1..3, do: assert(cat(Path.join(a, "x"), a, @keys) == {"old", 0})

      File.rename!(a, a <> "-before")
      File.mkdir!(a)
      File.write!(Path.join(a, "x"), "new")
      for _ <- 1..3, do: assert(cat(Path.join(a, "x"), a, @keys) == {"new", 0})
      assert cat(Path.join(a <> "-before", "x"), a, @keys) == {"", 1}
    end

    test "a link that leads elsewhere now is followed anew (#{name})", %{work: work, a: a} do
      [b, link] = for name <- ~w(b link), do: Path.join(work, name)
      File.mkdir!(b)
      for directory <- [a, b], do: File.write!(Path.join(directory, "x"), directory)

      for to <- [a, b, a] do
        File.rm(link)
        File.ln_s!(to, link)
        other = if to == a, do: b, else: a
        for _ <- 1..2, do: assert(cat(Path.join(link, "x"), link, @keys) == {to, 0})
        assert cat(Path.join(other, "x"), link, @keys) == {"", 1}
      end
    end
  end

  test "commands with mounts of their own, in turn with others, have no less and no more", %{a: a} do
    script = "cat /tmp/own 2>/dev/null; echo own > /tmp/own && cat /tmp/own /proc/self/comm"

    private = fn keys ->
      sandbox = [read: [:system, a], tmp: :private, processes: :own] ++ keys
      NetRunner.run(["sh", "-c", script], sandbox: sandbox)
    end

    for _ <- 1..4, keys <- [[], [], [metadata: :locked], []] do
      assert private.(keys) == {"own\ncat\n", 0}
    end
  end

  test "many commands with a /tmp of their own, one after the other: none has another's, or the machine's" do
    name = Path.basename(NetRunner.Temporary.path("own"))
    script = "cat /tmp/#{name}; echo x > /tmp/#{name} && echo written"
    run = &NetRunner.run(["sh", "-c", script], sandbox: &1, stderr: :disabled)

    for n <- 1..40 do
      assert run.(read: [:system], processes: :own, tmp: :private) == {"written\n", 0}

      if rem(n, 7) == 0 do
        assert {"", 2} = run.(read: [:system], processes: :own)
        assert {"", 2} = run.(read: [:system])
      end
    end
  end

  test "a directory that is gone is an error, until it is there again", %{a: a} do
    file = Path.join(a, "x")

    for _ <- 1..2 do
      File.mkdir_p!(a)
      File.write!(file, "there")
      assert cat(file, a) == {"there", 0}
      File.rm_rf!(a)
      assert {:error, {:sandbox, sentence}} = cat(file, a)
      assert sentence =~ a
    end
  end

  test "the same paths with other rights are another ruleset", %{a: a} do
    script = Path.join(a, "script")
    File.write!(script, "#!/bin/sh\necho ran")
    File.chmod!(script, 0o755)

    for _ <- 1..3 do
      assert NetRunner.run([script], sandbox: [read: [:system, a]]) == {"ran\n", 0}

      assert NetRunner.run([script], sandbox: [exec: [:system], read: [a]]) ==
               {:error, :eacces}
    end
  end

  @tag Tree.skip(@needs_root)
  test "a file system that was mounted again is another one, with the same numbers", %{a: a} do
    file = Path.join(a, "x")

    for round <- 1..3 do
      mount(a)
      File.write!(file, "round #{round}")
      for _ <- 1..2, do: assert(cat(file, a) == {"round #{round}", 0})
      {_, 0} = System.cmd("umount", [a])
    end
  end

  test "a terminal is allowed to the command that has one, and a further descriptor may have any number" do
    sandbox = [read: [:system], network: false]
    for _ <- 1..2, do: assert(NetRunner.run(~w(true), sandbox: sandbox) == {"", 0})

    open_it = ["sh", "-c", "echo shown > $(tty)"]
    assert NetRunner.run(open_it, sandbox: sandbox, pty: true) == {"shown\r\n", 0}

    for number <- 3..16 do
      assert NetRunner.run(~w(true), sandbox: sandbox) == {"", 0}
      command = ["bash", "-c", "cat <&#{number}; cat /etc/shadow"]

      assert NetRunner.run(command,
               sandbox: sandbox,
               fds: %{number => {:input, "#{number}"}},
               stderr: :disabled
             ) == {"#{number}", 1}
    end
  end

  @tag Tree.skip(@needs_root)
  test "what is mounted over a directory is allowed, and what is there after it", %{a: a} do
    file = Path.join(a, "x")
    File.write!(file, "below")

    for round <- 1..3 do
      assert cat(file, a) == {"below", 0}
      mount(a)
      File.write!(file, "mounted #{round}")
      assert cat(file, a) == {"mounted #{round}", 0}
      {_, 0} = System.cmd("umount", [a])
    end
  end

  for {name, keys} <- [files: [], mounts: [processes: :own, tmp: :private]] do
    @keys keys

    # Who else may look at its descriptors?
    @tag Tree.skip(@needs_root)
    test "a ruleset is kept for a while, and then no more (#{name})" do
      sandbox = [read: [:system]] ++ @keys
      {:ok, p} = Command.start("cat", [], sandbox: sandbox)
      # With a PID namespace, the parent that the command sees is none.
      shepherd = Tree.shepherd(p)
      :ok = Command.stop(p)

      # One look may come too late.
      Tree.await(fn ->
        assert {"", 0} = NetRunner.run(~w(true), sandbox: sandbox)
        keeps_ruleset?(shepherd)
      end)

      Tree.await(fn -> not keeps_ruleset?(shepherd) end)
      assert Tree.stat(shepherd) != nil
    end
  end

  @tag Tree.skip(@needs_root)
  test "a directory that was deleted is let go", %{a: a} do
    mount(a)
    directory = Path.join(a, "work")
    File.mkdir!(directory)
    assert NetRunner.run(~w(true), sandbox: [read: [:system, directory]]) == {"", 0}
    File.rmdir!(directory)

    # It fails as long as a directory without a name is held.
    Tree.await(fn ->
      {_, status} = System.cmd("mount", ["-o", "remount,ro", a], stderr_to_stdout: true)
      status == 0
    end)

    {_, 0} = System.cmd("umount", [a])
  end

  @tag Tree.skip(@needs_root)
  test "a file system whose files get new inodes is no trap for the next command", %{a: a} do
    {_, 0} = System.cmd("mount", ["-t", "proc", "none", a])
    on_exit(fn -> System.cmd("umount", ["-l", a], stderr_to_stdout: true) end)
    directory = Path.join(a, "driver")

    for _ <- 1..3 do
      assert {_, 0} = NetRunner.run(["ls", directory], sandbox: [read: [:system, directory]])
      # The kernel forgets the paths, and the inodes with them.
      {_, 0} = System.cmd("mount", ["-o", "remount", a])
    end
  end

  @autofs Path.expand("autofs.py", __DIR__)
  @needs_autofs if Tree.root?() and
                     String.contains?(File.read!("/proc/filesystems"), "\tautofs\n"),
                   do: nil,
                   else: "needs root, to mount, and a kernel with autofs"

  @tag Tree.skip(@needs_autofs)
  test "a directory that has become one where something is mounted on demand holds up nobody", %{
    a: a
  } do
    command = fn -> NetRunner.run(~w(true), sandbox: [read: [:system, a]], timeout: 30_000) end
    for _ <- 1..2, do: assert(command.() == {"", 0})
    {:ok, autofs} = NetRunner.Process.start("python3", [@autofs, a])
    on_exit(fn -> System.cmd("umount", ["-l", a], stderr_to_stdout: true) end)
    assert NetRunner.Process.read(autofs) == {:ok, "mounted\n"}
    for _ <- 1..2, do: assert(command.() == {"", 0})
    NetRunner.Process.close_stdin(autofs)
    assert NetRunner.Process.await_exit(autofs) == {:ok, 0}
  end

  @tag Tree.skip(@needs_root)
  test "a file that was deleted after the command takes no space any more", %{a: a} do
    mount(a)
    file = Path.join(a, "large")
    File.write!(file, :binary.copy("x", 1_000_000))
    assert {<<_::8_000_000>>, 0} = cat(file, file)
    File.rm!(file)
    # The kernel forgets the rules of a process some time after it.
    Tree.await(fn -> match?({all, all}, blocks(a)) end)
  end

  # Who else may look at its descriptors?
  @tag Tree.skip(@needs_root)
  test "a ruleset that names a file is not kept, and so holds nothing that is deleted", %{a: a} do
    file = Path.join(a, "large")
    File.write!(file, "x")
    script = ["-c", "echo ready; exec sleep 1000"]

    for {paths, kept?} <- [{[:system, a], true}, {[:system, file], false}] do
      # Nor is there one of the command before.
      Native.let_idle_go()
      {:ok, p} = Command.start("sh", script, sandbox: [read: paths])
      {:ok, "ready\n"} = Command.read(p)
      Tree.await(fn -> keeps_ruleset?(Tree.shepherd(p)) == kept? end)
      :ok = Command.stop(p)
    end
  end

  # In a mount namespace, with a copy of /etc.
  @tag Tree.skip(@needs_root)
  test "what has changed in the system is seen by the next command", %{work: work} do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    system = [read: [:system]]
    run = fn command -> NetRunner.run(command, sandbox: system, stderr: :disabled) end
    cat = fn path -> run.(["cat", path]) end
    kept? = fn shepherd -> {:ok, names} = File.ls("/proc/\#{shepherd}/fd")
      Enum.any?(names, &match?({:ok, "anon_inode:[landlock-ruleset]"}, File.read_link("/proc/\#{shepherd}/fd/\#{&1}"))) end
    # Not as long as something in /etc is young.
    keep = fn keep, sandbox -> {shepherd, 0} = NetRunner.run(["sh", "-c", "echo $PPID"], sandbox: sandbox)
      unless kept?.(String.trim(shepherd)), do: (Process.sleep(10); keep.(keep, sandbox)) end
    mount = fn arguments -> {_, 0} = System.cmd("mount", arguments) end

    for round <- 1..2 do
      content = "round \#{round}"
      File.write!("/etc/hosts", "before")
      keep.(keep, system)
      {"before", 0} = cat.("/etc/hosts")
      {"", 1} = cat.("/etc/pki/tls/cert.pem")
      File.mkdir_p!("/etc/pki/tls")
      File.write!("/etc/pki/tls/cert.pem", content)
      {^content, 0} = cat.("/etc/pki/tls/cert.pem")

      keep.(keep, system)
      File.write!("/etc/new", content)
      File.rename!("/etc/new", "/etc/hosts")
      {^content, 0} = cat.("/etc/hosts")

      keep.(keep, system)
      File.write!("\#{System.fetch_env!("WORK")}/over", "mounted")
      mount.(["--bind", "\#{System.fetch_env!("WORK")}/over", "/etc/hosts"])
      {"mounted", 0} = cat.("/etc/hosts")
      keep.(keep, system)
      {_, 0} = System.cmd("umount", ["/etc/hosts"])
      {^content, 0} = cat.("/etc/hosts")

      # A command that is refused in between hears of it, too.
      missing = "\#{System.fetch_env!("WORK")}/missing"
      sandbox = [read: [:system, missing]]
      hosts = fn -> NetRunner.run(~w(cat /etc/hosts), sandbox: sandbox, stderr: :disabled) end
      File.mkdir_p!(missing)
      mount.(["--bind", "\#{System.fetch_env!("WORK")}/over", "/etc/hosts"])
      keep.(keep, sandbox)
      {"mounted", 0} = hosts.()
      {_, 0} = System.cmd("umount", ["/etc/hosts"])
      File.rmdir!(missing)
      {:error, {:sandbox, _}} = hosts.()
      File.mkdir_p!(missing)
      {^content, 0} = hosts.()

      File.rm_rf!("/etc/localtime")
      File.ln_s!("hosts", "/etc/localtime")
      keep.(keep, system)
      {^content, 0} = cat.("/etc/localtime")
      File.write!("/etc/secret", "secret")
      File.rename!("/etc/hosts", "/etc/hosts.no_more")
      {"", 1} = cat.("/etc/localtime")
      {"", 1} = cat.("/etc/secret")
      File.rm_rf!("/etc/pki")
    end

    IO.write("all seen")
    """

    in_copy = "cp -a /etc $WORK/etc && mount --bind $WORK/etc /etc && exec \"$@\""
    command = ["unshare", "--mount", "sh", "-c", in_copy, "sh"] ++ Tree.elixir(code)
    env = [{"WORK", work} | Tree.elixir_env()]
    assert NetRunner.run(command, env: env, stderr: :redirect) == {"all seen", 0}
  end

  defp keeps_ruleset?(shepherd) do
    with {:ok, names} <- File.ls("/proc/#{shepherd}/fd") do
      links = for name <- names, do: File.read_link("/proc/#{shepherd}/fd/#{name}")
      {:ok, "anon_inode:[landlock-ruleset]"} in links
    end
  end

  defp mount(directory) do
    {_, 0} = System.cmd("mount", ~w(-t tmpfs -o size=8m none) ++ [directory])
    on_exit(fn -> System.cmd("umount", ["-l", directory], stderr_to_stdout: true) end)
  end

  # All, and those that are free.
  defp blocks(directory) do
    {blocks, 0} = System.cmd("stat", ["-f", "-c", "%b %f", directory])
    [all, free] = String.split(blocks)
    {all, free}
  end
end
