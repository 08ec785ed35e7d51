defmodule NetRunner.Application do
  @moduledoc false
  # The supervision tree: the registry of running commands, the directory of daemons, the commands that can be cancelled,
  # and the launcher. Commands themselves
  # are started by their callers; they are linked to the registry, so that stopping the application
  # ends them too.

  use Application

  # What a command without options needs besides what the start of the application has loaded.
  @first_command [
    NetRunner.Command,
    NetRunner.Options,
    NetRunner.Process,
    NetRunner.Process.Announcer,
    NetRunner.Process.Asker,
    NetRunner.Process.Boot,
    NetRunner.Process.Caller,
    NetRunner.Process.Client,
    NetRunner.Process.Collector,
    NetRunner.Process.Context,
    NetRunner.Process.Counters,
    NetRunner.Process.Exit,
    NetRunner.Process.Inlet,
    NetRunner.Process.Lifecycle,
    NetRunner.Process.Listing,
    NetRunner.Process.Operations,
    NetRunner.Process.Outlets,
    NetRunner.Process.Pipe,
    NetRunner.Process.Server,
    NetRunner.Process.State,
    NetRunner.Process.Watchers,
    NetRunner.Run.Input,
    NetRunner.Run.Progress,
    NetRunner.Sandbox.Policy,
    NetRunner.Signal,
    NetRunner.System.Cgroup,
    NetRunner.System.Descriptors,
    NetRunner.System.Spec,
    NetRunner.Telemetry
  ]

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
      {NetRunner.System.Launcher, meanwhile: &load_first_command/0}
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: NetRunner.Supervisor)
  end

  # All at once, while the helper program starts: one by one, each when it is called first, they take longer than the first
  # command itself. A release has loaded them already.
  defp load_first_command, do: :code.ensure_modules_loaded(@first_command)
end
