defmodule NetRunner.Doctor.Examination do
  @moduledoc false
  # The trials of `NetRunner.Doctor`, from what needs nothing to what needs a running command. One that fails where the others
  # rest on it is the last.

  import NetRunner.Doctor.Finding, only: [ok: 2, warning: 3, failed: 3]

  alias NetRunner.Doctor.Finding
  alias NetRunner.Error
  alias NetRunner.Sandbox
  alias NetRunner.System.{Cgroup, Launcher, Native}

  # Of a command of a trial, on a machine that has much else to do.
  @timeout 30_000

  @spec run() :: [Finding.t()]
  def run do
    before = [versions(), cargo(), library()]
    {helper, probe} = helper()

    before ++ [helper | with_application(probe)] ++ calls(probe) ++ limits() ++ surroundings()
  end

  # --- what is installed ------------------------------------------------------------------------------

  defp versions do
    # `bin/app eval` loads no applications.
    _ = Application.load(:net_runner)
    library = Application.spec(:net_runner, :vsn) || "of an unknown version"
    machine = :erlang.system_info(:system_architecture)

    ok(
      :versions,
      "NetRunner #{library}, Elixir #{System.version()}, Erlang/OTP #{System.otp_release()}, #{machine}"
    )
  end

  # A release has no Mix, and compiles nothing.
  defp cargo do
    cond do
      not Code.ensure_loaded?(Mix) ->
        ok(:cargo, "not needed: this is a release (there is no Mix)")

      precompiled?() ->
        ok(:cargo, "not needed: a precompiled native part is configured")

      true ->
        cargo_version()
    end
  end

  # As the compiler step has it: the environment comes first.
  defp precompiled? do
    case System.get_env("NET_RUNNER_PRECOMPILED") do
      nil -> Application.get_env(:net_runner, :precompiled) not in [nil, false]
      location -> location not in ["", "false"]
    end
  end

  @toolchain "install a current Rust toolchain to compile NetRunner here, or configure a precompiled native part " <>
               "(mix help net_runner.precompile)"

  defp cargo_version do
    case program("cargo", ["--version"]) do
      {text, 0} -> ok(:cargo, String.trim(text))
      {text, _status} -> warning(:cargo, "does not work: #{one_line(text)}", @toolchain)
      :missing -> warning(:cargo, "not on PATH", @toolchain)
    end
  end

  defp program(name, args) do
    case System.find_executable(name) do
      nil -> :missing
      path -> System.cmd(path, args, stderr_to_stdout: true)
    end
  end

  defp library do
    Code.ensure_loaded(Native)

    with :ok <- Native.loaded(),
         {:ok, read, write} <- Native.pipe() do
      Enum.each([read, write], &Native.close/1)
      ok(:library, "the native library is loaded, and made a pipe")
    else
      {:error, sentence} when is_binary(sentence) ->
        failed(
          :library,
          sentence,
          "compile it on a system such as this one, for the VM that runs here"
        )

      {:error, reason} ->
        failed(:library, "the native library is loaded, but #{Error.describe(reason)}", nil)
    end
  end

  @rebuild "`mix deps.compile net_runner --force` builds it anew (in NetRunner itself: `mix compile --force`). In a release: " <>
             "then build the release again, and copy it with its permissions"

  # Run without NetRunner, which may not work; and what it says of the system.
  defp helper do
    path = Launcher.helper_path()

    case System.cmd(path, ["probe"], stderr_to_stdout: true) do
      {text, 0} -> {ok(:helper, "the helper program runs (#{path})"), probe(text)}
      {text, status} -> {failed(:helper, bad_helper(path, status, text), @rebuild), %{}}
    end
  rescue
    error in ErlangError ->
      sentence =
        "#{Launcher.helper_path()} cannot be executed: #{Error.system_error(error.original)}"

      {failed(:helper, sentence, @rebuild), %{}}
  end

  defp bad_helper(path, status, text) do
    case one_line(text) do
      "" -> "#{path} exits with status #{status}, and says nothing"
      line -> "#{path} exits with status #{status}, and says: #{line}"
    end
  end

  defp probe(text) do
    for line <- String.split(text, "\n", trim: true),
        [name, result | value] <- [String.split(line, " ")],
        into: %{},
        do: {name, if(result == "ok", do: {:ok, List.first(value)}, else: {:error, result})}
  end

  # --- what runs commands -----------------------------------------------------------------------------

  defp with_application(probe) do
    case Application.ensure_all_started(:net_runner) do
      {:ok, started} ->
        before = if :net_runner in started, do: "starts", else: "was started"
        [ok(:application, "the :net_runner application " <> before) | commands(probe)]

      {:error, reason} ->
        [
          failed(
            :application,
            "the :net_runner application does not start: #{sentence(reason)}",
            "do what this says; what needs a command was not tried"
          )
        ]
    end
  end

  # What a supervisor says about its child's reason, or the application's: somewhere in it is the sentence.
  defp sentence(reason), do: find_sentence(reason) || inspect(reason)

  defp find_sentence(text) when is_binary(text), do: text
  defp find_sentence(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> find_sentence()
  defp find_sentence([head | tail]), do: find_sentence(head) || find_sentence(tail)
  defp find_sentence(_other), do: nil

  defp commands(probe) do
    case shell("cat; exit 3", input: "hello") do
      {"hello", 3} ->
        [ok(:commands, "a shell ran, and its output and status arrived")] ++
          [leftovers(), terminal(), pipes(), cgroups()] ++ sandbox(probe)

      other ->
        [
          failed(
            :commands,
            "a shell with `cat; exit 3` gave #{result(other)}",
            "see docs/troubleshooting.md"
          )
        ]
    end
  end

  defp shell(script, options),
    do: NetRunner.run(["/bin/sh", "-c", script], [timeout: @timeout] ++ options)

  defp result({:error, reason}), do: "an error: #{Error.describe(reason)}"
  defp result({output, status}), do: "#{inspect(output)} and status #{status}"

  # In a session of its own where setsid(1) is there; else only its parent is gone. The shell waits until it has closed
  # stdout, so it has started.
  @leave_behind """
  setsid=$(command -v setsid)
  pid=$($setsid sh -c 'echo $$; exec sleep 3607 </dev/null >/dev/null 2>&1' &)
  echo "$pid"
  """

  defp leftovers do
    said = shell(@leave_behind, [])

    with {text, 0} <- said,
         {pid, "\n"} <- Integer.parse(text) do
      if running?(pid) do
        System.cmd("/bin/sh", ["-c", "kill -9 #{pid}"], stderr_to_stdout: true)

        failed(
          :leftovers,
          "a process that left its session was still running when its command was over",
          "use Linux 3.4 or newer, which has child subreapers; elsewhere run commands that stay in their process group"
        )
      else
        ok(:leftovers, "a process that left its session was ended when its command was over")
      end
    else
      _no_number ->
        failed(:leftovers, "a shell gave #{result(said)}", "see docs/troubleshooting.md")
    end
  end

  # Its number may be that of another process by now.
  defp running?(pid) do
    case {:os.type(), File.read("/proc/#{pid}/cmdline")} do
      {{:unix, :linux}, {:ok, line}} -> line == "sleep\0" <> "3607\0"
      {{:unix, :linux}, {:error, _}} -> false
      _ -> match?({"sleep 3607" <> _, 0}, program("ps", ["-o", "args=", "-p", "#{pid}"]))
    end
  end

  defp terminal do
    case shell("test -t 0 && test -t 1 && echo yes", pty: true) do
      {"yes\r\n", 0} ->
        ok(:terminals, "a command had a terminal (pty: true)")

      other ->
        warning(
          :terminals,
          "with pty: true, a shell gave #{result(other)}",
          "mount devpts: mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts"
        )
    end
  end

  # What every pipe has at first. A command can write so much that nobody reads, and exit.
  @usual_pipe 65_536
  @patience 10_000

  defp pipes do
    limits =
      for {name, path} <- [
            {"pipe-max-size", "/proc/sys/fs/pipe-max-size"},
            {"pipe-user-pages-soft", "/proc/sys/fs/pipe-user-pages-soft"}
          ],
          number = number_in(path),
          do: "#{name} #{number}"

    details = if limits == [], do: "", else: " (#{Enum.join(limits, ", ")})"

    case fill_pipe() do
      {:ok, 0} ->
        ok(:pipes, "a new pipe holds #{@usual_pipe} bytes#{details}")

      {:error, :timeout} ->
        warning(
          :pipes,
          "a new pipe holds less than #{@usual_pipe} bytes#{details}: this user has used up what pipes may take",
          "raise fs.pipe-user-pages-soft with sysctl(8), or run fewer commands at once; they work, but slower"
        )

      {:ok, status} ->
        warning(
          :pipes,
          "`head` exited with status #{status}",
          "it reads /dev/zero: is that there?"
        )

      {:error, reason} ->
        warning(:pipes, "`head`: #{Error.describe(reason)}", "see docs/troubleshooting.md")
    end
  end

  defp fill_pipe do
    with {:ok, command} <-
           NetRunner.Process.start("head", ["-c", "#{@usual_pipe}", "/dev/zero"]) do
      exit = NetRunner.Process.await_exit(command, @patience)
      NetRunner.Process.stop(command)
      exit
    end
  end

  @cgroups_advice "only :cgroup_path needs it. Run the VM as root, or have a cgroup of version 2 delegated to its user " <>
                    "(systemd: Delegate=yes); in a container, mount /sys/fs/cgroup writable"

  # Where the path of `:cgroup_path` starts, or in the VM's own cgroup, which may be delegated to its user.
  defp cgroups do
    name = "net_runner_doctor_#{System.pid()}_#{System.unique_integer([:positive])}"
    own = own_cgroup()
    paths = Enum.uniq([name, Path.join(own || "", name)])

    Enum.find_value(paths, &usable_cgroup/1) ||
      warning(:cgroups, cgroup_problem(hd(paths)), @cgroups_advice)
  end

  defp usable_cgroup(path) do
    with {:ok, directory} <- Cgroup.create(%{cgroup_path: path, cgroup: []}) do
      controllers = controllers(Path.dirname(directory))
      Cgroup.remove(directory)

      # The shepherd's part: it puts the command there, and removes it.
      with {"", 0} <- shell("", cgroup_path: path) do
        cgroup_limits("a command ran in a cgroup below #{Path.dirname(directory)}", controllers)
      else
        _ -> nil
      end
    else
      _ -> nil
    end
  end

  @controllers_advice "only limits (:cgroup) need it. A controller that is used by cgroups of version 1 is not there for version 2: " <>
                        "boot with systemd.unified_cgroup_hierarchy=1. Otherwise turn it on in cgroup.subtree_control of the " <>
                        "directories above (systemd: Delegate=yes)"

  defp cgroup_limits(seen, controllers) do
    seen =
      "#{seen}; limits there: #{if controllers == [], do: "none", else: Enum.join(controllers, ", ")}"

    case ~w(memory pids) -- controllers do
      [] ->
        ok(:cgroups, seen)

      missing ->
        warning(:cgroups, "#{seen}; missing: #{Enum.join(missing, ", ")}", @controllers_advice)
    end
  end

  defp cgroup_problem(path) do
    case shell("", cgroup_path: path) do
      {:error, reason} -> Error.describe(reason)
      other -> "a shell in one gave #{result(other)}"
    end
  end

  defp controllers(directory) do
    case File.read(Path.join(directory, "cgroup.controllers")) do
      {:ok, text} -> String.split(text)
      _ -> []
    end
  end

  # Relative to the mount point; `nil` where there is none, or it is that itself.
  defp own_cgroup do
    with {:ok, text} <- File.read("/proc/self/cgroup"),
         [_, path] <- Regex.run(~r"^0::/(.+)$"m, text),
         do: path,
         else: (_ -> nil)
  end

  # --- the sandbox ------------------------------------------------------------------------------------

  # Which keys of `NetRunner.Sandbox.support/0` rest on what.
  @layers [
    landlock: [:filesystem, :ports, :signals],
    seccomp: [:system_calls, :network, :capabilities],
    namespaces: [:loopback, :processes, :tmp, :metadata]
  ]

  defp sandbox(probe) do
    support = Sandbox.support()

    for {topic, keys} <- @layers do
      case for key <- keys, {:missing, sentence} <- [support[key]], uniq: true, do: sentence do
        [] ->
          ok(
            topic,
            "the sandbox limits #{Enum.map_join(keys, ", ", &word/1)}#{abi(topic, probe)}"
          )

        sentences ->
          missing = for key <- keys, support[key] != :ok, do: word(key)

          warning(
            topic,
            "the sandbox cannot limit #{Enum.join(missing, ", ")}#{abi(topic, probe)}",
            Enum.join(sentences, "; ")
          )
      end
    end
  end

  defp word(key), do: key |> Atom.to_string() |> String.replace("_", " ")

  defp abi(:landlock, %{"landlock" => {:ok, version}}), do: " (Landlock ABI #{version})"
  defp abi(_topic, _probe), do: ""

  # --- what the helper may do -------------------------------------------------------------------------

  @filter "use a kernel that has it, or allow it in the container's filter of system calls (seccomp)"

  defp calls(probe) do
    [
      call(probe, :subreaper, :failed, "helpers adopt orphans (prctl, Linux 3.4)", @filter),
      call(
        probe,
        :pidfd,
        :warning,
        "processes are signalled by pidfd (Linux 5.3)",
        "without it, `kill/3` with `to: :tree` and `suspend/1` reach only some of the processes; #{@filter}"
      ),
      call(
        probe,
        :close_range,
        :warning,
        "descriptors are closed at once (Linux 5.9)",
        "nothing depends on it, the helper starts slower; #{@filter}"
      )
    ]
    |> Enum.reject(&is_nil/1)
  end

  defp call(probe, topic, state, seen, advice) do
    name = Atom.to_string(topic)

    case probe do
      %{^name => {:ok, _}} ->
        ok(topic, seen)

      %{^name => {:error, errno}} ->
        %Finding{topic: topic, state: state, seen: "refused (#{errno})", advice: advice}

      _helper_does_not_run ->
        nil
    end
  end

  # --- limits -----------------------------------------------------------------------------------------

  # What the VM has open for each command: the control socket and three pipes.
  @descriptors_of_a_command 4

  # Fewer commands at once than this are worth a word.
  @few 100

  defp limits, do: [descriptors(), processes()]

  defp descriptors do
    open = length(ls("/proc/self/fd"))

    case limit("Max open files", "-n") do
      nil ->
        ok(:descriptors, "no limit is known")

      number ->
        commands = max(div(number - open, @descriptors_of_a_command), 0)
        seen = "RLIMIT_NOFILE is #{number}: about #{commands} commands at once"

        if commands >= @few,
          do: ok(:descriptors, seen),
          else:
            warning(
              :descriptors,
              seen,
              "raise it for the VM: `ulimit -n`, or LimitNOFILE= of its systemd unit"
            )
    end
  end

  defp processes do
    limits = [
      {"RLIMIT_NPROC (of the user)", limit("Max processes", "-u")},
      {"pid_max", number_in("/proc/sys/kernel/pid_max")},
      {"pids.max (of the cgroup)", pids_max()}
    ]

    known = for {name, number} when number != nil <- limits, do: {name, number}
    seen = Enum.map_join(known, ", ", fn {name, number} -> "#{name} #{number}" end)

    # A command and its shepherd.
    if Enum.any?(known, fn {_, number} -> div(number, 2) < @few end),
      do:
        warning(
          :processes,
          seen,
          "raise the lowest (`ulimit -u`, LimitNPROC= and TasksMax= of systemd, the container's pids limit): each command " <>
            "takes two processes or more"
        ),
      else: ok(:processes, if(seen == "", do: "no limit is known", else: seen))
  end

  # The soft one of the VM: in /proc, or as a shell says it, which inherits it. `nil`: there is none, or it is not known.
  defp limit(name, option) do
    with {:ok, text} <- File.read("/proc/self/limits"),
         [_, soft] <- Regex.run(~r/^#{name} +(\S+)/m, text) do
      number(soft)
    else
      _ -> shell_limit(option)
    end
  end

  defp shell_limit(option) do
    with {text, 0} <- program("sh", ["-c", "ulimit #{option}"]),
         do: number(text),
         else: (_ -> nil)
  end

  # In a container, its own cgroup is often the root of what it sees.
  defp pids_max, do: number_in(Path.join(["/sys/fs/cgroup", own_cgroup() || "", "pids.max"]))

  defp number_in(path) do
    case File.read(path) do
      {:ok, text} -> number(text)
      {:error, _} -> nil
    end
  end

  # `unlimited` and `max` are no numbers.
  defp number(text) do
    case Integer.parse(text) do
      {number, _} -> number
      :error -> nil
    end
  end

  defp ls(directory) do
    case File.ls(directory) do
      {:ok, names} -> names
      {:error, _} -> []
    end
  end

  # --- where the VM is --------------------------------------------------------------------------------

  defp surroundings, do: [proc(), container()]

  # Its own number in its own PID namespace: another one's /proc has it not, or for another process.
  defp proc do
    cond do
      not match?({:unix, :linux}, :os.type()) ->
        ok(:proc, "not needed on this system")

      File.read_link("/proc/self") == {:ok, System.pid()} ->
        ok(:proc, "/proc is that of the VM's PID namespace")

      true ->
        warning(
          :proc,
          "there is no /proc of the VM's PID namespace",
          "mount one (mount -t proc proc /proc): without it, ending what a command left behind takes up to a second of CPU time"
        )
    end
  end

  # The kernel's number of the first PID namespace (PROC_PID_INIT_INO).
  @first_namespace "pid:[4026531836]"

  defp container do
    where =
      case File.read_link("/proc/self/ns/pid") do
        {:ok, @first_namespace} -> "no container (the machine's first PID namespace)"
        {:ok, _} -> "in a container (a PID namespace of its own)"
        {:error, _} -> "not known"
      end

    first =
      if System.pid() == "1",
        do:
          "; the VM is process 1, and as it ignores SIGCHLD the kernel reaps the orphans that it gets",
        else: ""

    ok(:container, where <> first)
  end

  defp one_line(text), do: text |> String.trim() |> Error.one_line() |> String.slice(0, 200)
end
