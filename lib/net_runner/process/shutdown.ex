defmodule NetRunner.Process.Shutdown do
  @moduledoc false
  # The end of all commands, when the application is about to stop: no other starts, daemons stop as their supervisor would stop them, and
  # all other commands are ended as when their owners die. This waits for the commands, and then for the processes that take
  # what they have printed; for each only as long as it may take.
  #
  # A start that is under way tells itself, when it finds that no command starts any more. Race: stopped application.

  alias NetRunner.Daemon.Directory
  alias NetRunner.{Error, Log}
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Announcer, Listing}
  alias NetRunner.System.Launcher

  # Beside :kill_timeout, in ms: what SIGKILL takes, and handlers of telemetry, which are waited for at the start and at the end.
  @margin 1_000 + 2 * Announcer.patience()

  # For the processes that take the rest.
  @last_words 5_000

  # By `receive`.
  @longest_wait 0xFFFF_FFFF

  @spec run() :: :ok
  def run do
    :ok = Launcher.close()
    end_all(Listing.servers())
  end

  defp end_all([]), do: :ok

  defp end_all(servers) do
    daemons = Directory.all()
    commands_of_daemons = MapSet.new(daemons, &elem(&1, 1))
    told_at = now()

    monitors = for pid <- Enum.map(daemons ++ servers, &elem(&1, 0)), do: Process.monitor(pid)

    for {daemon, _command} <- daemons, do: Process.exit(daemon, :shutdown)

    requests =
      for {server, kill_timeout} <- servers do
        of_daemon? = server in commands_of_daemons
        unless of_daemon?, do: send(server, :application_stops)
        # The stop command of a daemon may take as long.
        may_take = if of_daemon?, do: 2 * kill_timeout, else: kill_timeout
        {server, Command.request_exit(server), told_at + may_take + @margin}
      end

    late = for {server, exit, deadline} <- requests, not ended?(exit, deadline), do: server
    deadline = now() + @last_words

    cond do
      late != [] -> complain(late)
      Enum.all?(monitors, &gone?(&1, deadline)) -> end_all(Listing.servers())
      true -> :ok
    end
  end

  defp ended?(exit, deadline) do
    case :gen_server.receive_response(exit, remaining(deadline)) do
      {:reply, {:error, {:not_ended, _os_pid}}} -> false
      {:reply, _exit} -> true
      {:error, _gone} -> true
      :timeout -> false
    end
  end

  defp gone?(monitor, deadline) do
    receive do
      {:DOWN, ^monitor, :process, _, _} -> true
    after
      remaining(deadline) -> false
    end
  end

  defp complain(late) do
    left =
      for %{pid: pid} = entry <- Listing.list(),
          pid in late,
          do: "`#{Error.command_line(entry.command)}` (PID #{entry.os_pid})"

    if left != [] do
      sentence =
        "the application :net_runner stops, and commands have not ended within their :kill_timeout: #{Enum.join(left, ", ")}"

      # What is started here ends with the application.
      Log.write_and_wait(:warning, sentence)
    end

    :ok
  end

  defp now, do: System.monotonic_time(:millisecond)
  defp remaining(deadline), do: (deadline - now()) |> max(0) |> min(@longest_wait)
end
