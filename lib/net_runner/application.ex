defmodule NetRunner.Application do
  @moduledoc false
  # The supervision tree: the registry of commands, daemons and cancel tokens, and the launcher. Commands themselves
  # are started by their callers. A stop of the application ends them; they are linked to the registry, so that none is missed.

  use Application

  # What the start of the application and a first `NetRunner.run/2` without options need. The VM compiles each of them when it loads
  # it, which is most of the time that the two take. So they call no module for an option that is not given: all of it would be loaded.
  @needed [
    NetRunner,
    NetRunner.Options,
    NetRunner.Process.Boot,
    NetRunner.Process.Caller,
    NetRunner.Process.Client,
    NetRunner.Process.Collector,
    NetRunner.Process.Context,
    NetRunner.Process.Counters,
    NetRunner.Process.Exit,
    NetRunner.Process.Lifecycle,
    NetRunner.Process.Listing,
    NetRunner.Process.Operations,
    NetRunner.Process.Outlets,
    NetRunner.Process.Pipe,
    NetRunner.Process.Server,
    NetRunner.Process.State,
    NetRunner.Process.Watchers,
    NetRunner.Registry,
    NetRunner.Run.Input,
    NetRunner.System.Launcher,
    NetRunner.System.Spec
  ]

  # What the library takes of Elixir's and OTP's while it runs, as far as it may not be loaded by the time that this application starts.
  @of_others [
    :calendar,
    :gen_tcp,
    ArgumentError,
    Calendar.ISO,
    Collectable,
    Collectable.BitString,
    Collectable.List,
    DateTime,
    Enumerable,
    Enumerable.Function,
    Enumerable.List,
    Enumerable.Map,
    Enumerable.MapSet,
    Enumerable.Range,
    Exception,
    File,
    Function,
    Integer,
    Kernel.Utils,
    List,
    List.Chars,
    MapSet,
    Range,
    Regex,
    RuntimeError,
    Stream,
    String.Chars,
    String.Chars.Atom,
    String.Chars.BitString,
    String.Chars.Integer,
    String.Chars.List
  ]

  @impl true
  def start(_type, _args) do
    # All at once, on all schedulers: one by one, each when it is called first, they take longer than the first command itself.
    # In a release they are loaded already.
    _ = :code.ensure_modules_loaded(@needed)

    with :ok <- NetRunner.System.Native.loaded(),
         {:ok, supervisor} <- start_supervisor() do
      load_the_rest()
      {:ok, supervisor}
    end
  end

  # While the commands can still be read.
  @impl true
  def prep_stop(state) do
    :ok = NetRunner.Process.Shutdown.run()
    state
  end

  # The idle shepherds go with the launcher: their sockets are in the library, which may be unloaded.
  @impl true
  def stop(_state), do: NetRunner.System.Native.let_idle_go()

  # While a command runs, a descriptor for a file of code may be what the VM has no more of. So nothing of the library is
  # loaded late, nor what it takes of Elixir's; but none of it is needed at once.
  defp load_the_rest do
    modules = Application.spec(:net_runner, :modules) ++ @of_others
    :erlang.spawn_opt(Enum, :each, [modules, &:code.ensure_loaded/1], priority: :low)
  end

  defp start_supervisor do
    :ok = NetRunner.System.Launcher.create_table()

    children = [
      NetRunner.Registry,
      NetRunner.System.Launcher
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: NetRunner.Supervisor)
  end
end
