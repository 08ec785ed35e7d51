defmodule NetRunner.Sandbox.Attacks do
  @moduledoc false
  # What programs in a sandbox try, a row for each: the arguments of test/guarantees/sandbox/main.c, when the attack has succeeded, and
  # which sandboxes refuse it. What a sandbox does not limit, and docs/sandbox.md says so, is in a row, too: `passes`.
  #
  # The control of a row is the same attack without a sandbox, which succeeds. Where it cannot, `:impossible` says why, and the
  # test sees that it is so.

  alias NetRunner.Sandbox.World

  defstruct [
    :name,
    # of the attack program, from the context
    :args,
    # from what it printed and the context
    :succeeded,
    # from the context, before each attempt
    prepare: nil,
    needs: [],
    # of the command
    options: [],
    # more paths and keys of every sandbox of the row, from the context
    sandbox: nil,
    # the names of sandboxes (see sandbox/2)
    refused_by: [:basic, :strict],
    passes: [],
    # root's processes have capabilities, and a program without may not change how they are scheduled
    passes_as_root: true,
    # `false`: there is nobody outside whom the attack could be tried on
    control: true,
    # from the context: a reason, or nil
    impossible: nil,
    # what it prints when it is refused, in the basic sandbox
    says: ~w(EACCES EPERM)
  ]

  @doc "The sandboxes by name."
  def sandbox(:basic, _ctx), do: []
  def sandbox(:unix, _ctx), do: [network: :unix]
  def sandbox(:open, _ctx), do: [network: true]
  def sandbox(:own, _ctx), do: [processes: :own]
  def sandbox(:private, _ctx), do: [tmp: :private]
  def sandbox(:locked, _ctx), do: [metadata: :locked]
  def sandbox(:strict, _ctx), do: [processes: :own, tmp: :private, metadata: :locked]
  def sandbox(:loopback, _ctx), do: [network: :loopback]
  def sandbox(:connect, ctx), do: [network: [connect: [port(ctx)]]]
  def sandbox(:connect_elsewhere, ctx), do: [network: [connect: [other_port(ctx)]]]
  def sandbox(:bind, ctx), do: [network: [bind: [port(ctx)]]]

  @doc "Those without namespaces."
  def first_step, do: ~w(basic unix open)a

  # 47,110 where it does not matter which.
  defp port(ctx) do
    case Integer.parse(Map.get(ctx, :address, "")) do
      {port, ""} -> port
      _ -> 47_110
    end
  end

  defp other_port(ctx), do: if(port(ctx) == 47_111, do: 47_112, else: 47_111)

  def rows,
    do:
      files() ++
        metadata() ++
        network() ++
        processes() ++
        single_processes() ++ first_process() ++ privileges() ++ memory() ++ ipc() ++ kernel()

  # --- files ----------------------------------------------------------------------------------------

  defp files do
    [
      reading("reads a secret", &["read", secret(&1)]),
      reading("reads a secret by a relative path", fn _ -> ["read", "../outside/secret"] end),
      reading("reads a secret through a symbolic link of its own", &["read", mine(&1, "link")],
        prepare: &File.ln_s!(secret(&1), mine(&1, "link"))
      ),
      reading(
        "reads a secret through a symbolic link to its directory",
        &["read", mine(&1, "link/secret")],
        prepare: &File.ln_s!(&1.outside, mine(&1, "link"))
      ),
      reading(
        "reads a secret through /proc/self/root",
        &["read", "/proc/self/root" <> secret(&1)],
        says: ["EACCES"]
      ),
      reading("reads a secret through /proc/self/cwd", fn _ ->
        ["read", "/proc/self/cwd/../outside/secret"]
      end),
      reading(
        "reads a secret through another process' working directory",
        &["read", "/proc/#{&1.victim.pid}/cwd/secret"],
        needs: [:victim]
      ),
      reading(
        "reads a secret through another process' root directory",
        &["read", "/proc/#{&1.victim.pid}/root" <> secret(&1)],
        needs: [:victim]
      ),
      reading(
        "reads a secret through another process' open file",
        &["read", "/proc/#{&1.victim.pid}/fd/#{&1.victim.fd}"],
        needs: [:victim]
      ),
      reading(
        "reads a secret in another process' environment",
        &["read", "/proc/#{&1.victim.pid}/environ"],
        needs: [:victim]
      ),
      reading(
        "reads a secret in another process' memory file",
        &["read_memory_file", &1.victim.pid, &1.victim.address],
        needs: [:victim]
      ),
      reading(
        "changes into a directory and reads a secret there",
        &["read_in_directory", &1.outside, "secret"]
      ),
      reading(
        "reads a secret beneath a descriptor that only names",
        &["read_beneath_descriptor", &1.outside, "secret"]
      ),
      reading("opens again what a descriptor only names", &["read_again", secret(&1)]),
      reading(
        "links a secret into its directory, and reads it",
        &["link_and_read", secret(&1), mine(&1, "hard")],
        says: ~w(EXDEV EACCES)
      ),
      reading("reads a secret by its handle", &["read_by_handle", secret(&1), &1.work],
        impossible: &needs_root/1
      ),
      # Its mode is 0640; root has its content, with whatever permission bits.
      row("reads /etc/shadow", fn _ -> ["read", "/etc/shadow"] end,
        succeeded: fn output, _ -> output =~ "root:" end,
        impossible: &needs_root/1
      ),
      row("lists a directory", &["list", &1.outside],
        succeeded: fn output, _ -> output =~ "secret" end
      ),
      row("moves a secret into its directory", &["move", secret(&1), mine(&1, "stolen")],
        succeeded: fn _, ctx -> File.exists?(mine(ctx, "stolen")) end,
        says: ~w(EXDEV EACCES)
      ),
      row("exchanges a secret for a file of its own", &["exchange", secret(&1), mine(&1, "mine")],
        succeeded: fn _, ctx -> File.read!(mine(ctx, "mine")) =~ "SECRET" end,
        says: ~w(EXDEV EACCES)
      ),
      row("moves a file of its own elsewhere", &["move", mine(&1, "mine"), theirs(&1, "mine")],
        succeeded: &there?("mine", &1, &2),
        says: ~w(EXDEV EACCES)
      ),
      row("appends to a file", &["append", target(&1)], succeeded: &changed?/2),
      row("appends to a file that it may read", &["append", target(&1)],
        sandbox: &[read: [&1.outside]],
        succeeded: &changed?/2
      ),
      row("truncates a file", &["cut", target(&1)], succeeded: &changed?/2),
      row("truncates a file that it may read", &["cut", target(&1)],
        sandbox: &[read: [&1.outside]],
        succeeded: &changed?/2
      ),
      row("truncates a file by opening it", &["open_and_cut", target(&1)],
        sandbox: &[read: [&1.outside]],
        succeeded: &changed?/2
      ),
      row("creates a file", &["create", theirs(&1, "new")], succeeded: &there?("new", &1, &2)),
      row("creates a file in a directory that it may read", &["create", theirs(&1, "new")],
        sandbox: &[read: [&1.outside]],
        succeeded: &there?("new", &1, &2)
      ),
      row("creates a file through a symbolic link", &["create", mine(&1, "link/new")],
        prepare: &File.ln_s!(&1.outside, mine(&1, "link")),
        succeeded: &there?("new", &1, &2)
      ),
      row("deletes a file", &["delete", target(&1)],
        succeeded: fn _, ctx -> not File.exists?(target(ctx)) end
      ),
      row("makes a directory", &["make_directory", theirs(&1, "new")],
        succeeded: &there?("new", &1, &2)
      ),
      row("deletes a directory", &["delete_directory", theirs(&1, "empty")],
        succeeded: fn _, ctx -> not File.exists?(theirs(ctx, "empty")) end
      ),
      row("makes a symbolic link", &["make_link", "/etc/passwd", theirs(&1, "new")],
        succeeded: fn _, ctx -> match?({:ok, _}, File.lstat(theirs(ctx, "new"))) end
      ),
      row("makes a pipe with a name", &["make_fifo", theirs(&1, "new")],
        succeeded: &there?("new", &1, &2)
      ),
      row("makes a socket with a name", &["make_socket", theirs(&1, "new")],
        succeeded: &there?("new", &1, &2)
      ),
      row("opens the disk", fn _ -> ["open", disk()] end,
        impossible: &(needs_root(&1) || needs_disk())
      ),
      row(
        "gives the disk a name of its own, and opens it",
        &["make_disk", disk(), mine(&1, "disk")],
        impossible: &(needs_root(&1) || needs_disk())
      ),
      row("opens the kernel's log", fn _ -> ["open", "/dev/kmsg"] end,
        impossible: &if(not File.exists?("/dev/kmsg"), do: "there is none", else: needs_root(&1))
      ),
      row("opens /dev/shm", fn _ -> ["list", "/dev/shm"] end,
        succeeded: fn output, _ -> output =~ ".." end,
        # An empty one of its own.
        refused_by: [:basic]
      ),
      row("opens a new pseudo-terminal", fn _ -> ["open", "/dev/ptmx"] end),
      row("executes a program of its own", &["execute", mine(&1, "copy"), "who"],
        prepare: fn ctx ->
          File.cp!(ctx.program, mine(ctx, "copy"))
          File.chmod!(mine(ctx, "copy"), 0o755)
        end,
        succeeded: fn output, _ -> output =~ "effective" end
      ),
      row(
        "executes by a descriptor that only names",
        &["execute_by_descriptor", theirs(&1, "copy"), "who"],
        prepare: fn ctx ->
          File.cp!(ctx.program, theirs(ctx, "copy"))
          File.chmod!(theirs(ctx, "copy"), 0o755)
        end,
        succeeded: fn output, _ -> output =~ "effective" end,
        says: ["EACCES"]
      ),
      # docs/sandbox.md: `:exec` limits execve(2), not what code runs.
      row("executes a program in memory", &["execute_in_memory", mine(&1, "copy"), "who"],
        prepare: &File.cp!(&1.program, mine(&1, "copy")),
        succeeded: fn output, _ -> output =~ "effective" end,
        refused_by: [],
        passes: [:basic, :strict]
      ),
      row(
        "executes a program of its own by the dynamic linker",
        &["execute", linker(), mine(&1, "copy"), "who"],
        prepare: &File.cp!(&1.program, mine(&1, "copy")),
        succeeded: fn output, _ -> output =~ "effective" end,
        refused_by: [],
        passes: [:basic, :strict]
      ),
      # docs/sandbox.md: what it leaves may be set-user-ID.
      row("leaves a set-user-ID program of its user's", &["make_set_user_id", mine(&1, "mine")],
        succeeded: fn _, ctx -> mode(mine(ctx, "mine")) == 0o4755 end,
        refused_by: [],
        passes: [:basic, :strict]
      ),
      # docs/sandbox.md: a private /tmp holds what may be read there by a mount that is read-only, which limits no pipes.
      row("writes into a pipe that it may only read", &["print", theirs(&1, "pipe")],
        sandbox: &[read: [&1.outside]],
        prepare: fn ctx ->
          {_, 0} = System.cmd("mkfifo", ["-m", "666", theirs(ctx, "pipe")])
          # Open at both ends, so that nobody waits.
          {:ok, _} = :file.open(theirs(ctx, "pipe"), [:read, :write, :raw])
        end,
        refused_by: [:basic, :own, :locked],
        passes: [:private, :strict]
      ),
      row("keeps others from writing to a file that it may read", &["lease", target(&1)],
        sandbox: &[read: [&1.outside]],
        succeeded: &done?/2,
        says: ["EPERM"]
      ),
      # docs/sandbox.md: what a file is, and that it changes, can be seen everywhere.
      row("looks at a file, and watches it", &["look", target(&1)],
        succeeded: fn output, _ -> output == "seen\n" end,
        refused_by: [:private, :strict],
        passes: [:basic, :own, :locked]
      ),
      row("looks at a directory, watches it, and changes into it", &["look", &1.outside],
        succeeded: fn output, _ -> output == "seen\n" end,
        refused_by: [:private, :strict],
        passes: [:basic, :own, :locked]
      )
    ]
  end

  defp metadata do
    only_locked = [refused_by: [:locked, :private, :strict], passes: [:basic]]

    [
      row("changes permission bits", &["change_mode", target(&1)],
        succeeded: fn _, ctx -> mode(target(ctx)) == 0o777 end
      ),
      row(
        "changes permission bits of what it may read",
        &["change_mode_of_descriptor", target(&1)],
        sandbox: &[read: [&1.outside]],
        succeeded: fn _, ctx -> mode(target(ctx)) == 0o777 end
      ),
      row("changes the owner", &["change_owner", target(&1)],
        succeeded: fn _, ctx -> mode(target(ctx)) == 0o744 end
      ),
      row("changes times", &["change_times", target(&1)],
        succeeded: fn _, ctx -> File.stat!(target(ctx), time: :posix).mtime == 0 end
      ),
      row("sets an extended attribute", &["change_attribute", target(&1)],
        succeeded: fn _, ctx -> World.look(ctx, ["show_attribute", target(ctx)]) == "there\n" end,
        impossible: &unsupported(&1, ["change_attribute", mine(&1, "mine")])
      ),
      row("sets a flag of the file system on what it may read", &["change_flags", target(&1)],
        sandbox: &[read: [&1.outside]],
        succeeded: fn _, ctx -> World.look(ctx, ["show_flags", target(ctx)]) == "nodump\n" end,
        impossible: &unsupported(&1, ["change_flags", mine(&1, "mine")])
      )
    ]
    |> Enum.map(&struct!(&1, only_locked))
    # What may be read is there in a private /tmp, and its mount is not written to unless it is locked.
    |> Enum.map(&if(&1.sandbox, do: %{&1 | refused_by: [:locked, :strict]}, else: &1))
  end

  # --- the network ----------------------------------------------------------------------------------

  defp network do
    inet = [says: ["EACCES"]]
    all = [:basic, :unix, :loopback, :connect_elsewhere, :bind, :strict]

    [
      reaching("connects by TCP", :tcp, &["tcp", &1.address],
        passes: [:open, :connect],
        refused_by: all
      ),
      reaching(
        "connects by TCP, with bits that the kernel drops",
        :tcp,
        &["tcp_with_high_bits", &1.address],
        passes: [:open],
        refused_by: all
      ),
      reaching("connects by TCP over IPv6", :tcp6, &["tcp6", &1.address],
        passes: [:open, :connect],
        refused_by: all,
        impossible: fn _ -> if not ipv6?(), do: "no IPv6 on this machine" end
      ),
      reaching("connects by multipath TCP", :tcp, &["mptcp", &1.address],
        passes: [:open],
        refused_by: [:connect | all],
        impossible: fn _ ->
          if not File.exists?("/proc/sys/net/mptcp"), do: "the kernel has none"
        end
      ),
      reaching("sends by UDP", :udp, &["udp", &1.address],
        passes: [:open],
        refused_by: [:connect | all]
      ),
      reaching("connects by sending (sendto, MSG_FASTOPEN)", :tcp, &["fastopen", &1.address],
        passes: [:open],
        refused_by: all
      ),
      reaching(
        "connects by sending (sendmsg, MSG_FASTOPEN)",
        :tcp,
        &["fastopen_message", &1.address],
        passes: [:open],
        refused_by: all
      ),
      reaching(
        "connects by sending (sendmmsg, MSG_FASTOPEN)",
        :tcp,
        &["fastopen_messages", &1.address],
        passes: [:open],
        refused_by: all
      ),
      reaching(
        "connects later (TCP_FASTOPEN_CONNECT)",
        :tcp,
        &["fastopen_on_connect", &1.address],
        passes: [:open],
        refused_by: all
      ),
      # There is none of this name: the kernel looks for it, or does not.
      row("changes the protocol of a socket", fn _ -> ["change_protocol"] end,
        succeeded: fn output, _ -> output in ["ENOENT\n", "ENOTCONN\n"] end,
        passes: [:open, :loopback],
        refused_by: [:basic, :connect, :bind, :strict]
      ),
      # docs/sandbox.md: who may listen at one port may do so at one that the kernel chooses.
      row("listens without bind", fn _ -> ["listen_without_bind"] end,
        succeeded: fn output, _ -> output == "listening\n" end,
        passes: [:open, :loopback, :bind],
        refused_by: [:basic, :unix, :connect, :strict]
      ),
      row("listens", fn ctx -> ["listen_at", "#{port(ctx)}"] end,
        needs: [:free_port],
        succeeded: fn output, _ -> output == "listening\n" end,
        passes: [:open, :loopback, :bind],
        refused_by: [:basic, :unix, :connect, :strict]
      ),
      row("talks to itself by TCP", fn _ -> ["talk_to_self"] end,
        passes: [:open, :loopback],
        refused_by: [:basic, :unix, :connect, :bind, :strict]
      ),
      row("opens a raw socket", fn _ -> ["raw"] end,
        refused_by: [:basic, :unix, :open, :strict],
        impossible: &needs_root/1,
        says: ~w(EACCES EPERM)
      ),
      row("opens a packet socket", fn _ -> ["packet"] end,
        refused_by: [:basic, :unix, :open, :strict],
        impossible: &needs_root/1,
        says: ~w(EACCES EPERM)
      ),
      row("asks for the interfaces (netlink)", fn _ -> ["netlink"] end,
        passes: [:open],
        refused_by: [:basic, :unix, :connect, :strict]
      ),
      # Virtual sockets, the kernel's ciphers, and all that a kernel may have.
      row("tries each family of sockets", fn _ -> ["families"] end,
        succeeded: fn output, _ -> output =~ "/" end,
        passes: [:unix, :open, :loopback],
        says: ["none"]
      ),
      reaching("connects by a local socket", :local, &["local_socket", &1.address],
        passes: [:unix, :open],
        refused_by: [:basic, :connect, :strict]
      ),
      reaching("sends by a local socket", :datagram, &["local_datagram", &1.address],
        passes: [:unix, :open],
        refused_by: [:basic, :connect, :strict]
      ),
      # The scope of Landlock, whatever the network.
      reaching("connects by an abstract socket", :abstract, &["local_socket", "@" <> &1.mark],
        refused_by: [:basic, :unix, :open, :strict]
      ),
      reaching("sends from a pair of sockets", :datagram, &["pair", "datagram", &1.address],
        passes: [:unix, :open]
      ),
      reaching(
        "sends from a pair of sockets with flags",
        :datagram,
        &["pair", "flags", &1.address],
        passes: [:unix, :open]
      ),
      reaching(
        "sends from a pair of sockets with bits that the kernel drops",
        :datagram,
        &["pair", "high_bits", &1.address],
        passes: [:unix, :open]
      ),
      reaching(
        "sends from a pair of sockets that it calls raw",
        :datagram,
        &["pair", "raw", &1.address],
        passes: [:unix, :open]
      ),
      # The pair itself is allowed.
      reaching(
        "connects one of a pair of sockets elsewhere",
        :local,
        &["stream_pair", &1.address, "together"],
        impossible: fn _ -> "the kernel does not connect what is connected" end,
        says: ["EISCONN"]
      ),
      reaching(
        "connects what is left of a pair of sockets elsewhere",
        :local,
        &["stream_pair", &1.address, "alone"],
        impossible: fn _ -> "the kernel does not connect what was connected" end,
        says: ["EISCONN"]
      ),
      reading("takes an open file from somebody outside", &["take_file", &1.giver],
        needs: [:giver]
      ),
      reaching("connects by an io_uring", :tcp, &["ring", &1.address],
        refused_by: [:basic, :unix, :open, :strict],
        says: ["ENOSYS"],
        impossible: &no_ring/1
      )
    ]
    |> Enum.map(
      &if(&1.says == ~w(EACCES EPERM) and &1.needs == [:tcp], do: struct!(&1, inet), else: &1)
    )
    |> Kernel.++(other_architectures())
  end

  defp other_architectures do
    if :erlang.system_info(:system_architecture) |> List.to_string() =~ "x86_64" do
      all = [:basic, :unix, :open, :strict]

      [
        reaching(
          "connects by a system call of 32-bit programs",
          :tcp,
          &["tcp_of_32_bits", &1.address],
          refused_by: all,
          says: ["ENOSYS"],
          impossible: &unsupported(&1, ["tcp_of_32_bits", &1.address], "ENOSYS")
        ),
        reaching("connects by a system call of x32", :tcp, &["tcp_of_x32", &1.address],
          refused_by: all,
          says: ["ENOSYS"],
          impossible: &unsupported(&1, ["tcp_of_x32", &1.address], "ENOSYS")
        )
      ]
    else
      []
    end
  end

  # --- other processes ------------------------------------------------------------------------------

  defp processes do
    ways =
      ~w(send_kill send_to_group send_to_thread send_to_any_thread send_with_value send_by_descriptor send_by_pipe)

    signals =
      for way <- ways do
        row("signals another process (#{way})", &[way, &1.victim.pid, "10"],
          needs: [:victim],
          succeeded: fn _, ctx -> "signal 10" in World.signals(ctx) end,
          refused_by: [:basic, :open, :own, :strict],
          # The kernel, which is to send it, drops it.
          says: if(way == "send_by_pipe", do: ["done"], else: ["EPERM"])
        )
      end

    limits =
      for {who, pid} <- [{"another process", & &1.victim.pid}, {"the VM", & &1.actor.vm}],
          {how, attack} <- [
            {"", "limit"},
            {", with bits that the kernel drops", "limit_with_high_bits"}
          ] do
        row("sets a limit of #{who}#{how}", &[attack, pid.(&1), limit(&1)],
          needs: [:victim],
          succeeded: fn _, ctx -> World.limited?(pid.(ctx), limit(ctx)) end,
          impossible: if(who == "the VM", do: &not_the_vm/1),
          says: ["EPERM"]
        )
      end

    signals ++
      limits ++
      [
        row("signals everybody", fn _ -> ["send_to_all"] end,
          needs: [:victim],
          succeeded: fn _, ctx -> "signal 23" in World.signals(ctx) end,
          says: ~w(EPERM ESRCH done)
        ),
        row("kills its shepherd", fn _ -> ["send_kill", "shepherd", "9"] end,
          succeeded: fn result, _ -> result == "{:error, :shepherd_died}" end,
          refused_by: [:basic, :open, :own, :strict],
          impossible: &not_the_vm/1,
          says: ["EPERM"]
        ),
        row("sets a limit of its shepherd", fn _ -> ["limit", "shepherd", "12345"] end,
          refused_by: [:basic, :own, :strict],
          impossible: &not_the_vm/1,
          says: ["EPERM"]
        ),
        row("renices a group of processes", &["renice_group", &1.victim.pid],
          needs: [:victim],
          succeeded: fn _, ctx -> World.stat(ctx.victim.pid, 19) == "18" end,
          says: ["EPERM"]
        ),
        row(
          "renices a group of processes, with bits that the kernel drops",
          &["renice_group_with_high_bits", &1.victim.pid],
          needs: [:victim],
          succeeded: fn _, ctx -> World.stat(ctx.victim.pid, 19) == "18" end,
          says: ["EPERM"]
        ),
        row(
          "gives a group of processes another priority of input and output",
          &["slow_group", &1.victim.pid],
          needs: [:victim],
          succeeded: &slow?/2,
          says: ["EPERM"]
        ),
        row(
          "gives a group another priority of input and output, with high bits",
          &["slow_group_with_high_bits", &1.victim.pid],
          needs: [:victim],
          succeeded: &slow?/2,
          says: ["EPERM"]
        ),
        # Without a sandbox they would reach every process of the user.
        row("renices all of its user's processes", &["renice_user", "#{&1.actor.uid}"],
          needs: [:victim],
          control: false,
          succeeded: fn _, ctx -> World.stat(ctx.victim.pid, 19) == "18" end,
          says: ["EPERM"]
        ),
        row(
          "gives all of its user's processes another priority of input and output",
          &["slow_user", "#{&1.actor.uid}"],
          needs: [:victim],
          control: false,
          succeeded: &slow?/2,
          says: ["EPERM"]
        ),
        row("limits itself", fn _ -> ["limit_itself"] end,
          refused_by: [],
          passes: [:basic, :strict]
        ),
        row("finds a secret in command lines", &["search", "cmdline", &1.mark],
          needs: [:victim],
          succeeded: fn output, _ -> output =~ "found" end,
          says: ~w(EACCES)
        ),
        row("finds a secret in environments", &["search", "environ", &1.secret],
          needs: [:victim],
          succeeded: fn output, _ -> output =~ "found" end,
          says: ~w(EACCES)
        ),
        row("enters another process' namespaces", &["enter", &1.victim.pid],
          needs: [:victim],
          impossible: &needs_root/1
        )
      ]
  end

  # Process 1 of a PID namespace is a copy of a helper, with the file system as it was.
  defp first_process do
    for {name, args, succeeded} <- [
          {"reads a secret through the first process' root directory",
           &["read", "/proc/1/root" <> secret(&1)], &got_secret?/2},
          {"reads a secret through the first process' working directory",
           &["read", "/proc/1/cwd" <> secret(&1)], &got_secret?/2},
          {"reads the first process' environment", fn _ -> ["read", "/proc/1/environ"] end,
           fn output, _ -> not (output =~ ~r/^E[A-Z]+$/) end},
          {"takes a descriptor of the first process", fn _ -> ["take_descriptor", "1", "0"] end,
           &done?/2},
          {"traces the first process", fn _ -> ["trace", "1"] end, &done?/2},
          {"limits the first process", fn _ -> ["limit", "1", "12345"] end, &done?/2}
        ] do
      row(name, args,
        succeeded: succeeded,
        refused_by: [:own, :strict],
        control: false
      )
    end
    |> Kernel.++([
      # The kernel drops it, and says that it was sent; if it were, the program would be gone before it could tell.
      row("kills the first process, and goes on", fn _ -> ["send_kill", "1", "9"] end,
        succeeded: fn output, _ -> output not in ["done\n", "EPERM\n"] end,
        refused_by: [:own, :strict],
        control: false
      )
    ])
  end

  # docs/sandbox.md: that a single process is seen, and slowed down, needs `processes: :own`.
  defp single_processes do
    [
      row("renices another process", &["renice", &1.victim.pid],
        succeeded: fn _, ctx -> World.stat(ctx.victim.pid, 19) == "18" end
      ),
      row("moves another process to one processor", &["choose_processor", &1.victim.pid],
        succeeded: fn _, ctx ->
          File.read!("/proc/#{ctx.victim.pid}/status") =~ ~r/^Cpus_allowed_list:\s+0$/m
        end
      ),
      row("gives another process another scheduler", &["choose_scheduler", &1.victim.pid],
        succeeded: fn _, ctx -> World.stat(ctx.victim.pid, 41) == "3" end
      ),
      row("finds out that a process is there", &["send_kill", &1.victim.pid, "0"],
        succeeded: fn output, _ -> output != "ESRCH\n" end
      )
    ]
    |> Enum.map(
      &%{
        &1
        | needs: [:victim],
          passes: [:basic],
          passes_as_root: &1.name =~ "finds",
          refused_by: [:own, :strict]
      }
    )
  end

  defp privileges do
    user = "0x10000000"

    namespaces =
      for {how, attack} <- [
            {"unshare", "unshare"},
            {"clone", "clone"},
            {"clone, with high bits", "clone_with_high_bits"},
            {"clone3", "clone3"}
          ],
          {what, flag} <- [
            {"user", user},
            {"user and mount", "0x10020000"},
            {"user and network", "0x50000000"}
          ] do
        row("makes a #{what} namespace (#{how})", fn _ -> [attack, flag] end,
          refused_by: [:basic, :open, :strict],
          says: if(attack == "clone3", do: ["ENOSYS"], else: ["EPERM"]),
          impossible: &unsupported(&1, ["unshare", user])
        )
      end

    namespaces ++
      [
        row("executes a set-user-ID program of root's", &["execute", mine(&1, "root"), "who"],
          prepare: &set_user_id/1,
          sandbox: &[exec: [&1.work]],
          succeeded: fn output, _ -> output =~ "user 0," end,
          impossible: fn
            %{actor: %{uid: 0}} ->
              "it is root"

            ctx ->
              if not ctx.root?,
                do: "making one needs root",
                else: not_set_user_id(ctx)
          end,
          refused_by: [:basic, :open, :strict],
          says: :any
        ),
        row("has capabilities after execve", &["who_after_exec", &1.program],
          succeeded: fn output, _ ->
            not (output =~ "effective 000000000, permitted 000000000")
          end,
          refused_by: [:basic, :open, :strict],
          impossible: &needs_root/1,
          says: :any
        )
      ]
  end

  defp memory do
    for {name, args, succeeded} <- [
          {"traces another process", &["trace", &1.victim.pid], &done?/2},
          {"traces another process without stopping it", &["seize", &1.victim.pid], &done?/2},
          {"reads another process' memory", &["read_memory", &1.victim.pid, &1.victim.address],
           &got_secret?/2},
          {"writes another process' memory", &["write_memory", &1.victim.pid, &1.victim.address],
           &done?/2},
          {"compares itself with another process", &["compare", &1.victim.pid], &done?/2},
          {"takes a descriptor of another process",
           &["take_descriptor", &1.victim.pid, &1.victim.fd], &got_secret?/2},
          {"advises another process' memory",
           &["advise_memory", &1.victim.pid, &1.victim.address], &done?/2}
        ] do
      row(name, args,
        needs: [:victim],
        succeeded: succeeded,
        refused_by: [:basic, :open, :own, :strict],
        says: ["EPERM"],
        impossible: if(name =~ "advises", do: &needs_root/1, else: &no_tracing/1)
      )
    end
  end

  # --- what is shared by user ID --------------------------------------------------------------------

  defp ipc do
    keys = [
      row("adds a key", &["add_key", &1.mark],
        needs: [:keyring],
        succeeded: fn _, ctx -> World.look(ctx, ["read_key", ctx.mark]) =~ "SECRET" end
      ),
      row("reads a key", &["read_key", &1.mark],
        needs: [:key],
        succeeded: fn output, _ -> output =~ "SECRET" end
      ),
      row("asks for a key", &["request_key", &1.mark], needs: [:key], succeeded: &done?/2),
      row("takes a key away", &["unlink_key", &1.mark], needs: [:key], succeeded: &done?/2)
    ]

    # By their numbers, which are small and can be guessed.
    system_v =
      for {name, attack, what, succeeded} <- [
            {"reads shared memory", "read_shared_memory", :memory,
             fn output, _ -> output =~ "SECRET" end},
            {"removes shared memory", "remove_shared_memory", :memory, &done?/2},
            {"takes a message", "take_message", :queue, fn output, _ -> output =~ "SECRET" end},
            {"sends a message", "send_message", :queue,
             fn _, ctx -> World.ipc(ctx) =~ ~r/^there 2/ end},
            {"removes a queue of messages", "remove_queue", :queue,
             fn _, ctx -> World.ipc(ctx) =~ ~r/^there removed/ end},
            {"raises a semaphore", "raise_semaphore", :semaphore,
             fn _, ctx -> World.ipc(ctx) =~ ~r/ 5 / end},
            {"sets a semaphore", "set_semaphore", :semaphore,
             fn _, ctx -> World.ipc(ctx) =~ ~r/ 5 / end},
            {"removes a semaphore", "remove_semaphore", :semaphore,
             fn _, ctx -> World.ipc(ctx) =~ ~r/ -1 / end}
          ] do
        row(name <> " of another process", &[attack, Map.fetch!(&1.victim, what)],
          needs: [:victim],
          succeeded: succeeded,
          says: ~w(EPERM EACCES)
        )
      end

    posix = [
      row("opens a queue of another process", &["open_posix_queue", &1.victim.posix],
        needs: [:victim],
        impossible: &no_posix_queues/1
      ),
      row(
        "removes a queue of another process by its name",
        &["remove_posix_queue", &1.victim.posix],
        needs: [:victim],
        succeeded: fn _, ctx -> World.ipc(ctx) =~ ~r/removed\n$/ end,
        impossible: &no_posix_queues/1
      )
    ]

    new =
      for {name, attack} <- [
            {"shared memory", "make_shared_memory"},
            {"a queue", "make_queue"},
            {"a semaphore", "make_semaphore"}
          ] do
        row("makes #{name} for others", &[attack, "#{key(attack, &1)}"],
          prepare: &forget(attack, &1)
        )
      end

    keys ++ system_v ++ posix ++ new
  end

  # --- the kernel -----------------------------------------------------------------------------------

  defp kernel do
    everywhere = [refused_by: [:basic, :open, :strict]]

    terminal = [
      options: [pty: true],
      succeeded: fn output, _ -> output == "typed\n" end,
      says: ["EPERM"]
    ]

    calls =
      ~w(pivot_root move_mount fsconfig fsmount fspick mount_setattr open_tree_attr init_module finit_module delete_module
         kexec_load kexec_file_load reboot swapon swapoff acct settimeofday clock_settime adjtimex clock_adjtime io_uring_enter
         io_uring_register)

    calls = if x86?(), do: calls ++ ~w(iopl ioperm), else: calls

    looked_at =
      for call <- calls do
        says = if call =~ "io_uring", do: ["ENOSYS"], else: ["EPERM"]

        # With such arguments it cannot succeed; but the kernel must not have looked at them.
        row("makes the kernel look at #{call}", fn _ -> ["harmless", call] end,
          succeeded: fn output, _ -> output not in ["EPERM\n", "ENOSYS\n"] end,
          says: says,
          impossible: &unsupported(&1, ["harmless", call], ~w(EPERM ENOSYS))
        )
      end

    [
      row("makes a BPF map", fn _ -> ["bpf"] end,
        says: ["EPERM"],
        impossible: &unsupported(&1, ["bpf"])
      ),
      row("counts events", fn _ -> ["count_events"] end,
        says: ["EPERM"],
        impossible: &unsupported(&1, ["count_events"])
      ),
      row("handles page faults", fn _ -> ["handle_faults"] end,
        says: ["EPERM"],
        impossible: &unsupported(&1, ["handle_faults"])
      ),
      row("watches files (fanotify)", fn _ -> ["watch_files"] end,
        says: ["EPERM"],
        impossible: &unsupported(&1, ["watch_files"])
      ),
      row("reads the kernel's log", fn _ -> ["read_log"] end,
        says: ["EPERM"],
        impossible: &unsupported(&1, ["read_log"])
      ),
      row("types into its terminal", fn _ -> ["type_into_terminal"] end, [
        {:impossible, &no_typing/1} | terminal
      ]),
      row(
        "types into its terminal, with bits that the kernel drops",
        fn _ -> ["type_with_high_bits"] end,
        [
          {:impossible, &no_typing/1} | terminal
        ]
      ),
      row("pastes into a console", fn _ -> ["paste_into_console"] end,
        options: [pty: true],
        succeeded: fn output, _ -> output != "EPERM\n" end,
        says: ["EPERM"]
      ),
      row("writes to another's terminal", &["print", &1.victim.tty],
        needs: [:terminal],
        succeeded: fn output, _ -> output == "done\n" end
      ),
      row("writes to another's terminal from one of its own", &["print", &1.victim.tty],
        options: [pty: true],
        needs: [:terminal],
        succeeded: fn output, _ -> output == "done\n" end
      ),
      row("mounts", &["mount", &1.work], succeeded: &mounted?/2, impossible: &needs_root/1),
      row("binds a directory", &["bind_mount", &1.outside, &1.work],
        succeeded: &mounted?/2,
        impossible: &needs_root/1
      ),
      row("changes a mount", fn _ -> ["remount", "/proc"] end, impossible: &needs_root/1),
      row("unmounts", fn _ -> ["unmount", "/nowhere"] end,
        succeeded: fn output, _ -> output != "EPERM\n" end,
        says: ["EPERM"],
        impossible: &unsupported(&1, ["unmount", "/nowhere"])
      ),
      row("makes a file system", fn _ -> ["new_mount"] end, impossible: &needs_root/1),
      row("copies a tree of mounts", &["open_tree_copy", &1.work], impossible: &needs_root/1),
      row("changes its root directory", &["new_root", &1.work], impossible: &needs_root/1)
    ]
    |> Enum.map(&struct!(&1, everywhere))
    |> Kernel.++(looked_at)
  end

  # --- rows -----------------------------------------------------------------------------------------

  defp row(name, args, options \\ []) do
    struct!(__MODULE__, Keyword.merge([name: name, args: args, succeeded: &done?/2], options))
  end

  defp reading(name, args, options \\ []),
    do: row(name, args, [succeeded: &got_secret?/2] ++ options)

  defp reaching(name, need, args, options) do
    row(name, args, [needs: [need], succeeded: fn _, ctx -> ctx.heard.() end] ++ options)
  end

  defp done?(output, _ctx), do: output == "done\n"
  defp got_secret?(output, ctx), do: output =~ ctx.secret
  defp changed?(_output, ctx), do: not World.untouched?(ctx)
  defp there?(name, _output, ctx), do: File.exists?(theirs(ctx, name))
  defp slow?(_output, ctx), do: World.look(ctx, ["show_io_priority", ctx.victim.pid]) == "3\n"
  defp mounted?(_output, ctx), do: World.mounted?(ctx.work)

  defp secret(ctx), do: Path.join(ctx.outside, "secret")
  defp target(ctx), do: Path.join(ctx.outside, "target")
  defp theirs(ctx, name), do: Path.join(ctx.outside, name)
  defp mine(ctx, name), do: Path.join(ctx.work, name)
  defp mode(path), do: Bitwise.band(File.stat!(path).mode, 0o7777)

  # Another one each time.
  defp limit(ctx), do: "#{100_000 + rem(ctx.number, 100_000)}"

  defp linker,
    do: Enum.find(["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"], &File.exists?/1)

  defp x86?, do: :erlang.system_info(:system_architecture) |> List.to_string() =~ "x86_64"

  defp disk do
    [with({:ok, names} <- File.ls("/sys/block"), do: Enum.map(names, &("/dev/" <> &1)))]
    |> List.flatten()
    |> Enum.find("/dev/none", &(is_binary(&1) and File.exists?(&1)))
  end

  defp set_user_id(ctx) do
    if ctx.actor.uid != 0 and ctx.root? do
      File.cp!(ctx.program, mine(ctx, "root"))
      {_, 0} = System.cmd("chown", ["0:0", mine(ctx, "root")])
      File.chmod!(mine(ctx, "root"), 0o4755)
    end
  end

  # System V IPC under numbers that no other test uses, and no other actor: what one has made is closed to the others.
  defp key(attack, ctx), do: 0x4E000000 + :erlang.phash2({attack, ctx.actor.name}, 0x1000000)

  defp forget(attack, ctx) do
    option =
      %{"make_shared_memory" => "-M", "make_queue" => "-Q", "make_semaphore" => "-S"}[attack]

    System.cmd("ipcrm", [option, "#{key(attack, ctx)}"], stderr_to_stdout: true)
  end

  # --- why a control cannot succeed -----------------------------------------------------------------

  defp needs_root(%{actor: %{uid: 0}}), do: nil
  defp needs_root(_), do: "needs root"

  defp not_the_vm(%{actor: %{name: :user_of_root}}), do: "the VM and the shepherd are root's"
  defp not_the_vm(_), do: nil

  defp needs_disk, do: if(disk() == "/dev/none", do: "there is no disk")

  defp no_tracing(_ctx) do
    if sysctl("kernel/yama/ptrace_scope", 0) > 0, do: "Yama limits it (kernel.yama.ptrace_scope)"
  end

  defp no_typing(ctx) do
    if sysctl("dev/tty/legacy_tiocsti", 1) == 0, do: needs_root(ctx)
  end

  defp no_ring(_ctx) do
    if sysctl("kernel/io_uring_disabled", 0) > 0, do: "kernel.io_uring_disabled"
  end

  defp sysctl(name, default) do
    with {:ok, text} <- File.read("/proc/sys/" <> name),
         {value, _} <- Integer.parse(text),
         do: value,
         else: (_ -> default)
  end

  defp no_posix_queues(ctx) do
    if World.ipc(ctx) =~ ~r/removed\n$/, do: "the kernel has no POSIX message queues"
  end

  defp not_set_user_id(ctx) do
    mounts = File.read!("/proc/self/mountinfo")
    if mounts =~ ~r{ /tmp [^\n]*nosuid} and ctx.work =~ ~r{^/tmp/}, do: "/tmp is mounted nosuid"
  end

  defp ipv6?, do: match?({:ok, _}, :gen_tcp.listen(0, [:inet6, ip: {0, 0, 0, 0, 0, 0, 0, 1}]))

  # Asked of the kernel, without a sandbox.
  defp unsupported(ctx, args, refusals \\ ~w(EPERM EACCES ENOSYS EOPNOTSUPP ENOSPC EINVAL EUSERS)) do
    answer = ctx |> World.look(args) |> String.trim()

    if answer in List.wrap(refusals),
      do: "the kernel does not do it for this user here: #{answer}"
  end
end
