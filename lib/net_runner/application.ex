defmodule NetRunner.Application do
  @moduledoc false
  # The supervision tree: the registry of running commands, the directory of daemons, the commands that can be cancelled,
  # and the launcher. Commands themselves
  # are started by their callers; they are linked to the registry, so that stopping the application
  # ends them too.

  use Application

  @impl true
  def start(_type, _args) do
    with :ok <- NetRunner.System.Native.loaded(), do: start_supervisor()
  end

  defp start_supervisor do
    :ok = NetRunner.System.Launcher.create_table()

    children = [
      {Registry, keys: :unique, name: NetRunner.Registry, partitions: System.schedulers_online()},
      NetRunner.Daemon.Directory,
      NetRunner.Run.CancelToken,
      NetRunner.System.Launcher
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: NetRunner.Supervisor)
  end
end
