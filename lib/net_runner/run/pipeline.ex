defmodule NetRunner.Run.Pipeline do
  @moduledoc false
  # Commands whose stdouts and stdins are joined by pipes of the kernel.
  #
  # Its life: what each command is started with is planned; the pipes are made, the commands started from the first to
  # the last, each with its ends, and the VM's own ends closed, so that the end of one command is seen by its
  # neighbours. The VM feeds the first and reads the last. Each command has a server of its own; all have the same
  # owner and the same consumer. When one is lost or has to be ended, all are.

  alias NetRunner.{Command, Options}
  alias NetRunner.Process, as: Member
  alias NetRunner.Process.Server
  alias NetRunner.Run.Input
  alias NetRunner.System.{Native, Spec}

  # Options that only one command of a pipeline can have. Whether it is tagged, is said of the whole.
  @of_the_first [:input, :stdin]
  @of_the_last [:stdout, :max_output_size, :lines, :max_chunk_size, :tagged]

  @enforce_keys [:commands, :input, :timeout, :options, :on_exit]
  defstruct @enforce_keys

  # `options`: those with which the output is read. `on_exit`: for each command, what a stream does about a status
  # that is not 0.
  @type t :: %__MODULE__{
          commands: [{command :: [String.t()], options :: map()}, ...],
          input: Input.t(),
          timeout: timeout(),
          options: map(),
          on_exit: [:raise | :ignore, ...]
        }

  @type commands :: [[String.t()] | Command.t()]
  @type member :: {server :: pid(), command :: [String.t()]}

  @doc """
  What will be started. Mistakes in the list, the options, or a command's own options raise here, before anything is started.
  """
  @spec plan(commands(), keyword(), [Options.group()]) :: t()
  def plan(commands, options, groups) do
    unless is_list(commands) and commands != [] and not List.improper?(commands) do
      raise ArgumentError,
            "a pipeline is a list of commands, got: #{Options.Kind.shown(commands)}"
    end

    for_all = Options.validate!(options, groups)
    last = length(commands) - 1

    planned =
      for {command, index} <- Enum.with_index(commands) do
        {words, own} = own_options(command, groups)

        elsewhere =
          if(index == 0, do: [], else: @of_the_first) ++
            if index == last, do: [], else: @of_the_last

        refuse!(own, index, elsewhere)
        {words, options(options, own, elsewhere, groups), own[:exit_status]}
      end

    {_, first, _} = hd(planned)
    {_, final, _} = List.last(planned)

    %__MODULE__{
      commands: for({words, options, _} <- planned, do: {words, options}),
      input: Input.new(first),
      timeout: for_all.timeout,
      options: final,
      on_exit: for({_, _, own} <- planned, do: own || Map.get(for_all, :exit_status, :ignore))
    }
  end

  defp refuse!(own, index, elsewhere) do
    for option <- [:tagged | elsewhere], own[option] != nil do
      why =
        cond do
          option == :tagged -> "it applies to the whole pipeline"
          option in @of_the_first -> "it reads what the command before it writes"
          true -> "what it writes is read by the command after it"
        end

      raise ArgumentError,
            "the option #{inspect(option)} of the command with index #{index} has no meaning in a pipeline: #{why}"
    end
  end

  # The timeout of the pipeline is one for all, and only of the last command is stderr read.
  defp options(options, own, elsewhere, groups) do
    options = Keyword.drop(options, [:timeout | elsewhere])
    piped? = options[:stderr] == :pipe and :tagged in elsewhere
    options = if piped?, do: Keyword.delete(options, :stderr), else: options
    validated = options |> Options.merge(own) |> Options.validate!(groups)

    for option <- [:pty, :node, :cgroup_path], validated[option] not in [nil, false] do
      raise ArgumentError, "the option #{inspect(option)} has no meaning for a pipeline"
    end

    validated
  end

  # What a command brings of its own is stronger than what is said for all.
  defp own_options(%Command{} = command, groups) do
    command = Command.checked!(command)
    {[command.cmd | command.args], Keyword.take(command.opts, Options.Name.names(groups))}
  end

  defp own_options(command, _groups), do: {command, []}

  @doc """
  Starts all commands, or none. The error of a command has its index; beside it is the command, where the error is one's.
  """
  @spec start(t()) ::
          {:ok, [member(), ...], feeder :: pid() | nil}
          | {:error, reason :: term(), [String.t()] | nil}
  def start(%__MODULE__{} = plan) do
    deadline = deadline(plan.timeout)

    with :ok <- check(plan.commands, 0),
         :ok <- native_loaded(),
         {:ok, pipes} <- pipes(length(plan.commands) - 1, []) do
      start(plan, pipes, deadline)
    else
      {:error, reason} -> {:error, reason, nil}
      {:error, reason, words} -> {:error, reason, words}
    end
  end

  # What is no command is found before those in front of it run.
  defp check([], _index), do: :ok

  defp check([{words, options} | others], index) do
    case Spec.check(words, options) do
      :ok -> check(others, index + 1)
      {:error, reason} -> {:error, {:command, index, reason}, words}
    end
  end

  defp start(plan, pipes, deadline) do
    stdins = [:first | Enum.map(pipes, fn {read, _} -> {:fd, read} end)]
    stdouts = Enum.map(pipes, fn {_, write} -> {:fd, write} end) ++ [:last]

    result =
      [plan.commands, stdins, stdouts]
      |> Enum.zip()
      |> start_all(Input.for_server(plan.input), deadline, [])

    # Before anything is ended: one that waits for its neighbour must see that it is gone.
    close(pipes)

    case result do
      {:ok, [{first, _} | _] = members} ->
        watch(members, plan)
        {:ok, members, Input.feed(plan.input, first)}

      {:error, reason, command, started} ->
        stop(started)
        {:error, reason, command}
    end
  end

  @doc "Runs all to their end."
  @spec run(t()) :: {binary(), [0..255]} | {:error, term()}
  def run(%__MODULE__{} = plan) do
    # Nobody else can get the result.
    commands =
      for {words, options} <- plan.commands,
          do: {words, %{options | owner: options.owner || self()}}

    case start(%{plan | commands: commands}) do
      {:ok, members, feeder} ->
        finish(members, Input.watch(feeder), plan.options.max_output_size)

      {:error, reason, _command} ->
        {:error, reason}
    end
  end

  @doc """
  Waits until all have ended, and gives their statuses, or what ended them before their time and the first that it
  happened to.
  """
  @spec await([member()]) :: {:ok, [0..255]} | {:error, reason :: term(), member()}
  def await(members) do
    ends = for {server, _} = member <- members, do: {member, Member.await_exit(server)}
    lost = for {member, {:error, reason}} <- ends, do: {:error, reason, member}

    condemned =
      for {member, {:ok, _}} <- ends, reason = condemned(member), do: {:error, reason, member}

    # That one is left matters more than why all were ended.
    left = for {:error, {:not_ended, _}, _} = not_ended <- lost, do: not_ended

    case left ++ condemned ++ lost do
      [] -> {:ok, for({_, {:ok, status}} <- ends, do: status)}
      [first | _] -> first
    end
  end

  @doc "Ends all of them, at once, and waits until they are gone. The error is that of the first that does not end."
  @spec stop([member()]) :: :ok | {:error, {:not_ended, os_pid :: pos_integer()}}
  def stop(members) do
    with [_, _ | _] <- members, do: end_all(members, :stopped)
    ends = for {server, _} <- members, do: Member.stop(server)
    Enum.find(ends, :ok, &match?({:error, {:not_ended, _}}, &1))
  end

  # Without it, the application has not started, and has said why.
  defp native_loaded do
    with {:error, _sentence} <- Native.loaded(), do: {:error, :not_started}
  end

  defp pipes(0, made), do: {:ok, made}

  defp pipes(count, made) do
    case Native.pipe() do
      {:ok, read, write} ->
        pipes(count - 1, [{read, write} | made])

      error ->
        close(made)
        error
    end
  end

  defp close(pipes) do
    for {read, write} <- pipes, fd <- [read, write], do: Native.close(fd)
    :ok
  end

  defp start_all([], _input, _deadline, started), do: {:ok, Enum.reverse(started)}

  defp start_all([{{words, options}, stdin, stdout} | others], input, deadline, started) do
    options = if stdin == :first, do: options, else: %{options | stdin: stdin}
    options = if stdout == :last, do: options, else: %{options | stdout: stdout}
    # In the order of terms, `:infinity` comes after all numbers.
    options = %{options | timeout: min(options.timeout, remaining(deadline))}
    given = if stdin == :first, do: input, else: :open

    case Server.start(words, options, input: given, grace?: true, consumer: self()) do
      {:ok, server} ->
        start_all(others, input, deadline, [{server, words} | started])

      # No fault of this command.
      {:error, reason} when reason in [:timeout, :not_started] ->
        {:error, reason, words, started}

      {:error, reason} ->
        {:error, {:command, length(started), reason}, words, started}
    end
  end

  # Each command's end is awaited by a process of its own. One that is lost (its server or its shepherd was killed), or
  # has to be ended, ends all: the others may wait for one another for ever.
  #
  # The watch is on before anybody else looks at the commands. So a server that is gone without a reason has told the
  # status to who asked for it (a collect stops it), and one that was gone before was killed.
  defp watch([_], _plan), do: :ok

  defp watch(members, plan) do
    caller = self()
    ref = make_ref()

    for {member, {_, options}} <- Enum.zip(members, plan.commands),
        do: spawn(__MODULE__, :begin_watch, [{member, members, options.timeout}, {caller, ref}])

    for _ <- members, do: receive(do: ({^ref, :watching} -> :ok))
    :ok
  end

  @doc false
  def begin_watch({{server, _}, _, _} = watched, {caller, ref}) do
    monitor = Process.monitor(server)
    request = Member.request_exit(server)
    send(caller, {ref, :watching})
    :erlang.hibernate(__MODULE__, :await_failure, [watched, monitor, request])
  end

  @doc false
  # Race: upgraded while it waits.
  def await_failure({member, members, own_timeout} = watched, monitor, request) do
    failed? =
      receive do
        {:DOWN, ^monitor, :process, _, reason} -> reason != :normal
        message -> failed?(message, request, member, own_timeout)
      end

    case failed? do
      true -> end_all(members, :asked)
      false -> :ok
      :unknown -> :erlang.hibernate(__MODULE__, :await_failure, [watched, monitor, request])
    end
  end

  defp failed?(message, request, member, own_timeout) do
    case :gen_server.check_response(message, request) do
      # The timeout of the pipeline ends each by itself, so that the error names the first that still ran.
      {:reply, {:ok, _status}} ->
        condemned(member) not in [nil | if(own_timeout == :infinity, do: [:timeout], else: [])]

      # The reason with which the server ends says more.
      {:reply, {:error, :closed}} ->
        :unknown

      {:reply, {:error, _lost}} ->
        true

      {:error, _gone} ->
        :unknown

      # Of whoever has got hold of this pid.
      :no_reply ->
        :unknown
    end
  end

  defp condemned({server, _}) do
    case Member.verdict(server) do
      nil -> nil
      # It has exited, and its server has stopped since.
      {:error, :closed} -> nil
      {:error, reason} -> reason
    end
  end

  defp end_all(members, cause) do
    for {server, _} <- members, do: Member.end_command(server, cause)
  end

  defp finish(members, feeder, max_output_size) do
    {{last, _}, others} = List.pop_at(members, -1)

    result =
      with {output, status} when is_binary(output) <-
             Member.collect(last, max_output_size),
           {:ok, statuses} <- await(others) do
        {output, statuses ++ [status]}
      else
        {:error, reason, _member} -> {:error, reason}
        {:error, reason} -> {:error, reason}
      end

    first_of_all = condemned(hd(members))
    # That one is left matters more than why all were ended.
    result = with :ok <- stop(members), do: result

    # What was produced for the first and failed is the reason of all else.
    case {first_of_all, Input.await_end(feeder)} do
      {{:input_failed, _} = reason, _} -> {:error, reason}
      {_, {:error, {:input_failed, _}} = failed} -> failed
      {_, :ok} -> result
    end
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  defp remaining(:infinity), do: :infinity
  defp remaining(deadline), do: max(0, deadline - System.monotonic_time(:millisecond))
end
