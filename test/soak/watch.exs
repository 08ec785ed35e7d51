defmodule Soak.Watch do
  @moduledoc false
  # Samples of what must not grow, taken while nothing runs.

  alias NetRunner.Guarantees.Tree
  alias Soak.{Actions, Harm, Peer, Proc}

  # {name, unit, growth that is tolerated: over the whole run, or over the longest life of a helper}. Counts must not grow.
  # Memory does a little: heaps and allocators settle over many minutes, and pages of the helper program are copied when they are
  # first written.
  @metrics [
    {:vm_fds, "descriptors", 0.5},
    {:vm_ports, "ports", 0.5},
    {:vm_processes, "processes of the VM", 0.5},
    {:vm_atoms, "atoms", 5},
    {:vm_ets, "ETS tables", 0.5},
    {:vm_ets_memory, "KiB in ETS", 16},
    {:vm_resources, "blocks of binary_alloc (NIF resources and binaries)", 20},
    {:vm_process_memory, "KiB of the VM in processes", 256},
    {:vm_binary_memory, "KiB of the VM in binaries", 256},
    {:vm_other_memory, "KiB of the VM elsewhere", 256},
    {:vm_rss, "KiB resident of the VM", 8_192},
    {:os_processes, "processes below the VM", 0.5},
    {:guard_memory, "KiB private of the guard", 16},
    {:launcher_memory, "KiB private of the launcher", 16},
    {:shepherd_memory, "KiB private of an idle shepherd", 16},
    {:helpers_pss, "KiB PSS of all helpers", 2_048}
  ]

  def metrics, do: @metrics

  @doc "Waits until everything is over that the actions started; gives what is left."
  def settle(context) do
    case Proc.await(fn -> left(context) == [] end) do
      :ok ->
        Harm.forget(context.harm)
        Peer.forget(context.peer)
        []

      :late ->
        left(context)
    end
  end

  defp left(context) do
    guard = Harm.guard()
    current = helpers([guard])
    old = helpers(Enum.reject(Harm.sessions(context.harm), &(&1 == guard)))
    peer = Peer.sessions(context.peer)

    List.flatten([
      for(pid <- Proc.marked(Actions.mark_of_all()), do: {:process, pid, command_line(pid)}),
      for(command <- NetRunner.list(), do: {:listed, command.command}),
      for(pid <- old, do: {:old_helper, pid, Proc.stat(pid)}),
      # The guard, the launcher, two spares, and up to eight that are kept.
      if(length(current) in 4..12, do: [], else: {:helpers, length(current)}),
      for(pid <- strangers(current), do: {:below_helpers, pid, command_line(pid)}),
      if(length(helpers(peer)) in 4..12 or peer == [],
        do: [],
        else: {:peer_helpers, length(helpers(peer))}
      ),
      if(context.cgroup, do: cgroups(context.cgroup), else: [])
    ])
  end

  # What is below a helper and is none; zombies too.
  defp strangers(helpers) do
    for helper <- helpers,
        pid <- Proc.descendants(helper),
        pid not in helpers,
        Proc.stat(pid),
        do: pid
  end

  defp cgroups(root) do
    for path <- Path.wildcard("#{root}/net_runner_soak_#{System.pid()}/*"),
        File.dir?(path),
        do: {:cgroup, path}
  end

  defp helpers(sessions), do: Tree.helpers(%{sessions: sessions})

  defp command_line(pid) do
    case File.read("/proc/#{pid}/cmdline") do
      {:ok, text} -> String.replace(text, <<0>>, " ")
      {:error, _} -> ""
    end
  end

  @doc "Each metric as `{name, value, who}`; several samples of one metric where there are several of whom."
  def sample do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    memory = :erlang.memory()
    guard = Harm.guard()
    launcher = Tree.current_launcher()
    helpers = helpers([guard])
    shepherds = for pid <- helpers, Proc.parent(pid) == launcher, do: pid

    vm = [
      # Of each idle shepherd there is one, and their number varies.
      vm_fds: Proc.fds() - length(shepherds),
      vm_ports: length(Port.list()),
      vm_processes: :erlang.system_info(:process_count),
      vm_atoms: :erlang.system_info(:atom_count),
      vm_ets: length(:ets.all()),
      vm_ets_memory: div(memory[:ets], 1024),
      vm_resources: binary_blocks(),
      vm_process_memory: div(memory[:processes], 1024),
      vm_binary_memory: div(memory[:binary], 1024),
      vm_other_memory: div(memory[:system] - memory[:binary] - memory[:ets], 1024),
      vm_rss: Proc.status(System.pid(), "VmRSS"),
      # Idle shepherds come and go; they are counted when the run has ended.
      os_processes: length(Proc.descendants(String.to_integer(System.pid())) -- shepherds),
      helpers_pss: Enum.sum(for pid <- helpers, pss = Proc.pss(pid), do: pss)
    ]

    for({name, value} <- vm, do: {name, value, :vm}) ++
      memory(:guard_memory, [guard]) ++
      memory(:launcher_memory, [launcher]) ++
      memory(:shepherd_memory, shepherds)
  end

  defp memory(name, pids) do
    for pid <- pids, pid, value = Proc.status(pid, "RssAnon"), do: {name, value, pid}
  end

  defp binary_blocks do
    for {:instance, _, data} <- :erlang.system_info({:allocator, :binary_alloc}),
        {carriers, figures} when carriers in [:mbcs, :sbcs, :mbcs_pool] <- data,
        {:blocks, blocks} <- figures,
        reduce: 0 do
      sum -> sum + blocks(blocks)
    end
  end

  # OTP 24 and newer say for which allocator.
  defp blocks([{_type, _} | _] = types) do
    for {_type, figures} <- types,
        {:count, now, _, _} <- figures,
        reduce: 0,
        do: (sum -> sum + now)
  end

  defp blocks(_none), do: 0
end
