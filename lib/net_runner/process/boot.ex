defmodule NetRunner.Process.Boot do
  @moduledoc false
  # The start of a command, in the process that becomes its server: from the options to a command that runs, or
  # the reason why not.
  #
  # In order: build the spec, make the cgroup, submit the command to a shepherd, and wait until it says that the command
  # has started. A wait ends early when its time is over, or when one of those dies whose death ends the command (`wanted_by`: their
  # monitors).

  alias NetRunner.Process.{Announcer, Counters, Fault, Inlet, Lifecycle, Listing, Outlets, Pipe}
  alias NetRunner.Sandbox.Policy
  alias NetRunner.System.{Cgroup, Descriptors, Launcher, Native, Spec}

  # How many launchers in a row may die with the request unread.
  @attempts 20

  # In ms, by `receive`.
  @longest_wait 0xFFFF_FFFF

  # A command that has started. `inlet`: `nil` where its stdin leads elsewhere. `fds`: its further descriptors, by their numbers: an `Inlet` for each that it reads, and
  # `Outlets` with only a stdout for each that it writes. `rest_of_timeout`: the ms that are left of `:timeout`. `owner`, `consumer` and
  # `captor`: see `State`. `registry`: the process of the registry that it is linked to.
  @enforce_keys [
    :control,
    :owner,
    :consumer,
    :captor,
    :registry,
    :started,
    :counters,
    :cgroup,
    :sandbox,
    :life,
    :inlet,
    :outlets,
    :fds,
    :announcer,
    :rest_of_timeout
  ]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          control: Native.fd(),
          owner: reference() | nil,
          consumer: reference() | nil,
          captor: reference() | nil,
          registry: pid(),
          started: {system_time :: integer(), monotonic_time :: integer()},
          counters: Counters.t(),
          cgroup: Cgroup.t(),
          sandbox: [Policy.in_force()] | nil,
          life: Lifecycle.t(),
          inlet: Inlet.t() | nil,
          outlets: Outlets.t(),
          fds: %{Descriptors.fd() => Inlet.t() | Outlets.t()},
          announcer: pid() | nil,
          rest_of_timeout: timeout()
        }

  @doc """
  Starts the command. `extra.input` is `:none` when nothing will be written to stdin; `extra.grace?` says whether
  `:output_grace` applies; `extra.context` is that of the caller, for telemetry handlers; `extra.consumer` (unless it is
  the owner) or `extra.captured_by` is the only process that gets the result; `extra.stops_daemon?`: also while the application stops.
  """
  @spec start(Spec.command(), map(), map()) ::
          {:ok, t()} | {:error, term()} | {:crashed, sentence :: String.t()}
  def start(command, %{} = options, %{} = extra) do
    attempt(command, options, extra)
  catch
    kind, reason ->
      {:crashed, Fault.sentence("a command could not be started", kind, reason, __STACKTRACE__)}
  end

  defp attempt(command, %{} = options, %{} = extra) do
    {_, now} = started = {System.system_time(), System.monotonic_time()}

    [owner, consumer, captor] =
      for pid <- [options.owner || application_master(), extra[:consumer], extra[:captured_by]],
          do: pid && Process.monitor(pid)

    wanted_by = for ref <- [owner, consumer, captor], ref != nil, into: %{}, do: {ref, true}
    patience = {wanted_by, deadline(now, options[:timeout])}
    give_up_after = give_up_after(options)
    standard = connections(options, Map.get(extra, :input, :open))
    connections = {standard, further_connections(options.fds)}

    leave_application()

    with :ok <- application_open(extra),
         {:ok, fields} <- Spec.build(command, options),
         {:ok, joined, cgroup} <- cgroups(options),
         {:ok, os_pid, fds} <-
           start_in(
             cgroup,
             join(fields, joined),
             {connections, options.pipe_size},
             patience,
             give_up_after
           ),
         {control, stdin, stdout, stderr, further} = fds,
         counters = Counters.new(stdin, stdout, stderr),
         {:ok, registry} <-
           Listing.register(command, os_pid, elem(started, 0), counters, options.kill_timeout) do
      # Race: stopped application.
      if application_open(extra) != :ok, do: send(self(), :application_stops)
      terminal? = options.pty != false
      tail = if options.stderr == :consume, do: options.stderr_tail

      life = %Lifecycle{
        os_pid: os_pid,
        leftovers: options.leftovers,
        cgroup?: cgroup != nil,
        give_up_after: give_up_after,
        grace: if(extra[:grace?], do: options.output_grace, else: :none)
      }

      announcer = announcer(command, os_pid, started, extra.context)

      if announcer,
        do: Announcer.await_start(announcer, wanted_by, remaining(elem(patience, 1)))

      {:ok,
       %__MODULE__{
         control: control,
         owner: owner,
         consumer: consumer,
         captor: captor,
         registry: registry,
         started: started,
         counters: counters,
         cgroup: cgroup,
         sandbox: options.sandbox && Policy.in_force(options.sandbox),
         life: life,
         inlet: stdin && Inlet.new(stdin, terminal?),
         outlets: Outlets.new(Pipe.new(stdout, terminal?), Pipe.new(stderr), tail, counters),
         fds: Map.new(further, fn {number, fd} -> {number, further(options.fds[number], fd)} end),
         announcer: announcer,
         rest_of_timeout: remaining(elem(patience, 1))
       }}
    else
      {:error, reason} ->
        reason = Spec.blame(reason, options)
        announcer = announcer(command, nil, started, extra.context)
        if announcer, do: Announcer.await_failure(announcer, reason, wanted_by)
        {:error, reason}
    end
  end

  # A handler of telemetry can only be attached by a call of the module, which loads it. So this look-up is all that events cost
  # without one.
  defp announcer(command, os_pid, started, context) do
    if :erlang.function_exported(:telemetry, :execute, 3) do
      span = %{
        command: command,
        pid: self(),
        os_pid: os_pid,
        callers: context.callers,
        started: started
      }

      Announcer.start(span, context)
    end
  end

  # Race: stopped application. A daemon is stopped by a command of its own also then.
  defp application_open(extra) do
    takes? = Launcher.open?() or extra[:stops_daemon?] == true

    if takes? and Process.whereis(NetRunner.Registry) != nil,
      do: :ok,
      else: {:error, :not_started}
  end

  # What nobody owns ends with the application that has started it, if that is one.
  defp application_master do
    if :application.get_application() != :undefined, do: Process.group_leader()
  end

  # When an application stops, all processes with its group leader are killed (application(3erl)). Then nobody would read what the command
  # prints at its end. Nothing is printed here.
  defp leave_application do
    if user = Process.whereis(:user), do: Process.group_leader(self(), user)
  end

  # Counted apart: stats are those of the standard ones.
  defp further(:output, fd), do: Outlets.new(Pipe.new(fd), nil, nil, Counters.new(nil, fd, nil))
  defp further(_input, fd), do: Inlet.new(fd, false)

  defp give_up_after(%{give_up_after: :infinity}), do: :infinity
  defp give_up_after(%{} = options), do: options.kill_timeout + options.give_up_after

  # --- the cgroups --------------------------------------------------------------------------------

  # That to join, and that which is made for the command.
  defp cgroups(%{cgroup_path: nil, cgroup: []}), do: {:ok, nil, nil}

  defp cgroups(%{} = options) do
    with {:ok, joined} <- Cgroup.joined(options),
         {:ok, cgroup} <- Cgroup.create(options),
         do: {:ok, joined, cgroup}
  end

  # --- connections --------------------------------------------------------------------------------

  defp connections(%{pty: false} = options, input) do
    {stdin(options.stdin, input), options.stdout, stderr(options.stderr, options.stdout)}
  end

  defp connections(%{pty: true} = options, input), do: connections(%{options | pty: []}, input)

  defp connections(%{pty: settings}, _input) do
    {:terminal, Keyword.get(settings, :rows, 24), Keyword.get(settings, :cols, 80),
     Keyword.get(settings, :echo, true)}
  end

  defp further_connections(fds) when fds == %{}, do: []
  defp further_connections(fds), do: Descriptors.connections(fds)

  defp stdin(nil, :none), do: :null
  defp stdin(nil, _input), do: :pipe
  defp stdin({:file, path}, _input), do: {:read, path}
  defp stdin(kind, _input), do: kind

  defp stderr(:disabled, _stdout), do: :null
  defp stderr(mode, _stdout) when mode in [:consume, :pipe], do: :pipe
  # Both share one open file, so that neither overwrites what the other wrote.
  defp stderr({_, _} = file, file), do: :redirect
  defp stderr(kind, _stdout), do: kind

  # --- submitting the command -----------------------------------------------------------------------

  defp join(fields, nil), do: fields
  defp join(fields, joined), do: [{:joined_cgroup, joined} | fields]

  defp start_in(cgroup, fields, pipes, patience, give_up_after) do
    fields = if cgroup, do: [{:cgroup, cgroup} | fields], else: fields

    with {:error, reason} <- submit(fields, pipes, patience, give_up_after, @attempts) do
      if cgroup, do: Cgroup.remove(cgroup)
      {:error, reason}
    end
  end

  # Race: unread begin. `:not_taken` means that nothing has happened yet.
  defp submit(fields, {connections, pipe_size} = pipes, patience, give_up_after, attempts) do
    with {:ok, control, stdin, stdout, stderr, further} <-
           Launcher.submit(fields, connections, pipe_size, patience) do
      case await_started_in_time(control, patience, give_up_after) do
        {:ok, os_pid} ->
          {:ok, os_pid, {control, stdin, stdout, stderr, further}}

        failed ->
          # If nobody has read it, it is taken back, and the cgroup is removed here. Race: abandoned begin.
          _ = Native.end_command(control)
          further = Enum.map(further, &elem(&1, 1))
          for fd <- [control, stdin, stdout, stderr | further], fd != nil, do: Native.close(fd)

          if failed == :not_taken and attempts > 1,
            do: submit(fields, pipes, patience, give_up_after, attempts - 1),
            else: with(:not_taken <- failed, do: {:error, :launcher_died})
      end
    end
  end

  # Race: timeout beside the start. What a shepherd has begun to start is a command like any other: it is ended by its timeout, and
  # waited for. An execve(2) may take any time: the program may be on a file system that does not answer.
  defp await_started_in_time(control, {wanted_by, _} = patience, give_up_after) do
    with {:error, :timeout} <- await_started(control, patience) do
      if Native.withdraw(control),
        do: {:error, :timeout},
        else: await_late_start(control, {wanted_by, deadline(give_up_after)})
    end
  end

  defp await_late_start(control, patience) do
    case await_started(control, patience) do
      {:ok, os_pid} -> {:ok, os_pid}
      # It may have seen that the command was taken back.
      gone when gone in [:not_taken, {:error, :shepherd_died}] -> {:error, :timeout}
      failed -> failed
    end
  end

  defp await_started(control, {wanted_by, deadline} = patience) do
    case Native.receive_event(control) do
      {:started, os_pid} ->
        {:ok, os_pid}

      {:failed, :receive, errno} ->
        {:error, errno}

      {:failed, step, errno} ->
        Native.retire(control)
        {:error, not_started(step, errno)}

      {:error, :eagain} ->
        receive do
          {:select, ^control, _, :ready_input} -> await_started(control, patience)
          # Race: owner dies during the start.
          {:DOWN, ref, :process, _, _} when is_map_key(wanted_by, ref) -> {:error, :closed}
        after
          remaining(deadline) -> {:error, :timeout}
        end

      # No shepherd of ours says that before the start.
      {:exited, _how, _usage} ->
        {:error, :malformed}

      :reset ->
        :not_taken

      # It took the request, so the command may have run.
      :eof ->
        {:error, :shepherd_died}

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp not_started(step, errno) when step in [:fork, :exec], do: errno
  defp not_started({:fd, number}, errno), do: {:fd, number, errno}
  defp not_started(step, errno), do: {step, errno}

  # --- time ---------------------------------------------------------------------------------------

  defp deadline(timeout), do: deadline(System.monotonic_time(), timeout)

  defp deadline(_from, timeout) when timeout in [nil, :infinity], do: :infinity

  defp deadline(from, timeout),
    do: System.convert_time_unit(from, :native, :millisecond) + timeout

  defp remaining(:infinity), do: :infinity

  defp remaining(deadline),
    do: (deadline - System.monotonic_time(:millisecond)) |> max(0) |> min(@longest_wait)
end
