defmodule NetRunner.Pipeline do
  @moduledoc false
  # Commands whose stdouts and stdins are joined by pipes of the kernel.
  #
  # Its life: the pipes are made, the commands started from the first to the last, each with its ends, and the
  # VM's own ends closed, so that the end of one command is seen by its neighbours. The VM feeds the first and
  # reads the last. Each command has a server of its own; all have the same owner.

  alias NetRunner.{Command, Input, Options}
  alias NetRunner.Process.{Native, Server}

  @type commands :: [[String.t()] | Command.t()]
  @type member :: {server :: pid(), command :: [String.t()]}

  @doc "Starts all commands, or none."
  @spec start(commands(), map(), Input.t()) ::
          {:ok, [member(), ...]} | {:error, reason :: term(), command :: term()}
  def start(commands, options, input) do
    check!(commands, options)

    with {:ok, pipes} <- pipes(length(commands) - 1, []) do
      ends = for {read, write} <- pipes, fd <- [read, write], do: fd
      stdins = [:first | Enum.map(pipes, fn {read, _} -> {:fd, read} end)]
      stdouts = Enum.map(pipes, fn {_, write} -> {:fd, write} end) ++ [:last]
      result = start_all(Enum.zip([commands, stdins, stdouts]), options, input, [])
      Enum.each(ends, &Native.close/1)

      with {:ok, [{first, _} | _]} <- result do
        Input.feed(input, first)
        result
      end
    else
      {:error, reason} -> {:error, reason, commands}
    end
  end

  @doc "Runs all to their end."
  @spec run(commands(), map(), Input.t()) :: {binary(), [0..255]} | {:error, term()}
  def run(commands, options, input) do
    deadline = deadline(options.timeout)

    case start(commands, options, input) do
      {:ok, members} -> finish(members, options, deadline)
      {:error, reason, _command} -> {:error, reason}
    end
  end

  @doc "Ends all of them, at once."
  @spec stop([member()]) :: :ok
  def stop(members) do
    for({server, _} <- members, do: Task.async(fn -> NetRunner.Process.stop(server) end))
    |> Task.await_many(:infinity)

    :ok
  end

  defp check!(commands, options) do
    unless is_list(commands) and commands != [] do
      raise ArgumentError, "a pipeline is a list of commands, got: #{inspect(commands)}"
    end

    for option <- [:pty, :node, :cgroup_path], options[option] not in [nil, false] do
      raise ArgumentError, "the option #{inspect(option)} has no meaning for a pipeline"
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

  defp start_all([], _options, _input, started), do: {:ok, Enum.reverse(started)}

  defp start_all([{command, stdin, stdout} | others], options, input, started) do
    {words, options_here} = own_options(command, options)
    options_here = if stdin == :first, do: options_here, else: %{options_here | stdin: stdin}
    options_here = if stdout == :last, do: options_here, else: %{options_here | stdout: stdout}
    given = if stdin == :first, do: Input.for_server(input), else: :open

    case Server.start(words, options_here, input: given) do
      {:ok, server} ->
        start_all(others, options, input, [{server, words} | started])

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

  defp finish(members, options, deadline) do
    {last, _} = List.last(members)
    others = Enum.drop(members, -1)

    result =
      with {output, status} when is_binary(output) <-
             NetRunner.Process.collect(last, options.max_output_size, remaining(deadline)),
           {:ok, statuses} <- statuses(others, deadline) do
        {output, statuses ++ [status]}
      end

    failure = NetRunner.Process.input_failure(elem(hd(members), 0))
    stop(members)

    case {failure, result} do
      {nil, result} -> result
      {failure, _} -> {:error, {:input_failed, failure}}
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
