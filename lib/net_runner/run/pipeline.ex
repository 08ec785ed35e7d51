defmodule NetRunner.Run.Pipeline do
  @moduledoc false
  # Commands whose stdouts and stdins are joined by pipes of the kernel.
  #
  # Its life: the pipes are made, the commands started from the first to the last, each with its ends, and the
  # VM's own ends closed, so that the end of one command is seen by its neighbours. The VM feeds the first and
  # reads the last. Each command has a server of its own; all have the same owner.

  alias NetRunner.{Command, Options}
  alias NetRunner.Process.Server
  alias NetRunner.Run.Input
  alias NetRunner.System.Native

  @type commands :: [[String.t()] | Command.t()]
  @type member :: {server :: pid(), command :: [String.t()]}

  @doc "Starts all commands, or none. `timeout`: of each, when it is not the caller's business."
  @spec start(commands(), map(), Input.t(), timeout()) ::
          {:ok, [member(), ...], feeder :: pid() | nil}
          | {:error, reason :: term(), command :: term()}
  def start(commands, options, input, timeout) do
    planned = plan(commands, options)

    with {:ok, pipes} <- pipes(length(commands) - 1, []) do
      ends = for {read, write} <- pipes, fd <- [read, write], do: fd
      stdins = [:first | Enum.map(pipes, fn {read, _} -> {:fd, read} end)]
      stdouts = Enum.map(pipes, fn {_, write} -> {:fd, write} end) ++ [:last]

      result =
        [planned, stdins, stdouts]
        |> Enum.zip()
        |> start_all(Input.for_server(input), timeout, [])

      Enum.each(ends, &Native.close/1)

      with {:ok, [{first, _} | _] = members} <- result,
           do: {:ok, members, Input.feed(input, first)}
    else
      {:error, reason} -> {:error, reason, commands}
    end
  end

  @doc "Runs all to their end."
  @spec run(commands(), map(), Input.t()) :: {binary(), [0..255]} | {:error, term()}
  def run(commands, options, input) do
    deadline = deadline(options.timeout)

    case start(commands, options, input, :infinity) do
      {:ok, members, feeder} -> finish(members, feeder, options, deadline)
      {:error, reason, _command} -> {:error, reason}
    end
  end

  @doc "Ends all of them, at once, and waits until they are gone."
  @spec stop([member()]) :: :ok
  def stop(members) do
    with [_, _ | _] <- members do
      for {server, _} <- members, do: NetRunner.Process.end_command(server, :stopped)
    end

    for {server, _} <- members, do: NetRunner.Process.stop(server)
    :ok
  end

  # Before anything is started: what can be said against the list, or against a command's own options, is said.
  defp plan(commands, options) do
    unless is_list(commands) and commands != [] do
      raise ArgumentError, "a pipeline is a list of commands, got: #{inspect(commands)}"
    end

    for command <- commands do
      {words, options} = own_options(command, options)

      for option <- [:pty, :node, :cgroup_path], options[option] not in [nil, false] do
        raise ArgumentError, "the option #{inspect(option)} has no meaning for a pipeline"
      end

      {words, options}
    end
  end

  defp pipes(0, made), do: {:ok, made}

  defp pipes(count, made) do
    case Native.pipe() do
      {:ok, read, write} ->
        pipes(count - 1, [{read, write} | made])

      error ->
        for {read, write} <- made, fd <- [read, write], do: Native.close(fd)
        error
    end
  end

  defp start_all([], _input, _timeout, started), do: {:ok, Enum.reverse(started)}

  defp start_all([{{words, options}, stdin, stdout} | others], input, timeout, started) do
    options = if stdin == :first, do: options, else: %{options | stdin: stdin}

    options = if stdout == :last, do: options, else: %{options | stdout: stdout}

    # Only of the last one is stderr read, and only by a stream that is tagged.
    options =
      if stdout == :last and options[:tagged],
        do: options,
        else: NetRunner.Run.Stream.consuming_stderr(options)

    given = if stdin == :first, do: input, else: :open

    case Server.start(words, options, input: given, timeout: timeout) do
      {:ok, server} ->
        start_all(others, input, timeout, [{server, words} | started])

      {:error, reason} ->
        stop(started)
        {:error, reason, words}
    end
  end

  # What a command brings of its own is stronger than what is said for all.
  defp own_options(%Command{} = command, options) do
    own = Keyword.take(command.opts, Options.names([:command]))
    given = Map.take(Options.validate!(own, [:command]), Keyword.keys(own))
    {[command.cmd | command.args], Map.merge(options, given)}
  end

  defp own_options(command, options), do: {command, options}

  defp finish(members, feeder, options, deadline) do
    {last, _} = List.last(members)
    others = Enum.drop(members, -1)

    result =
      with {output, status} when is_binary(output) <-
             NetRunner.Process.collect(last, options.max_output_size, remaining(deadline)),
           {:ok, statuses} <- statuses(others, deadline) do
        {output, statuses ++ [status]}
      end

    verdict = NetRunner.Process.verdict(elem(hd(members), 0))
    stop(members)

    # What was produced for the first and failed is the reason of all else.
    case {verdict, Input.await_end(feeder)} do
      {{:error, {:input_failed, _}}, _} -> verdict
      {_, {:error, {:input_failed, _}} = failed} -> failed
      {_, :ok} -> result
    end
  end

  defp statuses(members, deadline) do
    Enum.reduce_while(members, {:ok, []}, fn {server, _}, {:ok, statuses} ->
      case NetRunner.Process.await_exit(server, remaining(deadline)) do
        {:ok, status} -> {:cont, {:ok, statuses ++ [status]}}
        error -> {:halt, error}
      end
    end)
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  defp remaining(:infinity), do: :infinity
  defp remaining(deadline), do: max(0, deadline - System.monotonic_time(:millisecond))
end
