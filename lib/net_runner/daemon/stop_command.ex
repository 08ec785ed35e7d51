defmodule NetRunner.Daemon.StopCommand do
  @moduledoc false
  # The command that stops a daemon in its own way, run by a process of its own: the daemon waits for nothing but messages.
  #
  # It runs as the daemon's command does: as the same user, in the same directory, with the same environment. What belongs to
  # one command alone, such as its files, its terminal or its cgroup, is not shared.

  alias NetRunner.{Error, Options}
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Context, Server}

  @not_shared ~w(arg0 stdin stderr stderr_tail pty fds cgroup_path leftovers output_grace stop_signal)a

  # What it takes to end one whose time is over.
  @margin 1_000

  @enforce_keys [:command, :options]
  defstruct @enforce_keys

  @type t :: %__MODULE__{command: [String.t()], options: map()}

  @doc "Of the options of a daemon."
  @spec new(map()) :: t() | nil
  def new(%{stop_command: nil}), do: nil

  def new(%{stop_command: command, process_opts: options}) do
    defaults = Options.validate!([], [:command])
    # Limits are those of a cgroup that was made for the daemon.
    cgroup = if options.cgroup_path, do: [], else: options.cgroup

    options =
      options
      |> Map.merge(Map.take(defaults, @not_shared))
      |> Map.merge(%{cgroup: cgroup, stdout: :null, kill_timeout: 0})
      |> Map.put(:timeout, options.kill_timeout)

    %__MODULE__{command: command, options: options}
  end

  @doc "Runs it, within the daemon's `:kill_timeout`. The error is in words."
  @spec run(t()) :: :ok | {:error, String.t()}
  def run(%__MODULE__{} = stop) do
    context = Context.capture()

    answer = make_ref()
    daemon = self()

    # Linked, so that it does not outlive a daemon that is killed.
    {pid, monitor} =
      :erlang.spawn_opt(
        fn ->
          Context.adopt(context)
          send(daemon, {answer, result(stop)})
        end,
        [:link, :monitor]
      )

    receive do
      {^answer, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, _, reason} ->
        {:error, "it could not be run: #{inspect(reason)}"}
    after
      stop.options.timeout + @margin ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        {:error, "it " <> not_in_time(stop.options)}
    end
  end

  defp result(%{command: command, options: options}) do
    case Server.start(command, options, input: :none, stops_daemon?: true) do
      {:ok, server} ->
        result = Command.await_exit(server)
        ended = Command.verdict(server)
        failure = Command.failure(server)
        Command.stop(server)
        explain(ended || result, command, failure, options)

      error ->
        explain(error, command, [], options)
    end
  end

  defp explain({:ok, 0}, _command, _failure, _options), do: :ok

  defp explain({:ok, status}, command, failure, _options) do
    error = struct!(Error, [reason: :exit_status, command: command, status: status] ++ failure)
    {:error, Exception.message(error)}
  end

  defp explain({:error, :timeout}, command, _failure, options),
    do: {:error, "`#{Error.command_line(command)}` #{not_in_time(options)}"}

  defp explain({:error, reason}, command, _failure, _options) do
    {:error, Exception.message(%Error{reason: reason, command: command})}
  end

  defp not_in_time(options), do: "did not end within :kill_timeout (#{options.timeout} ms)"
end
