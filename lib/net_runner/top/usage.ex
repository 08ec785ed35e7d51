defmodule NetRunner.Top.Usage do
  @moduledoc false
  # What a command and everything that it started use, as /proc has it.
  #
  # All of these are descendants of the command's shepherd, also what was left without a parent: the kernel's lists of
  # children lead to them without a look at any other process. A kernel that has no such lists shows the command alone.

  # The kernel's unit of time in /proc, of which there are 100 in a second on all usual systems (proc(5)).
  @ms_per_tick 10
  # What starts more than so many processes is not counted to its end.
  @most 1_000

  @enforce_keys [:state, :cpu_ms, :memory]
  defstruct @enforce_keys

  # `state`: that of the command itself. `memory`: resident bytes; what is shared counts in each process.
  @type t :: %__MODULE__{
          state: String.t(),
          cpu_ms: non_neg_integer(),
          memory: non_neg_integer()
        }

  @doc "`nil`: it is gone, or the system has no /proc."
  @spec of(pos_integer()) :: t() | nil
  def of(os_pid) do
    with {:ok, state, parent, own_ticks} <- stat(os_pid) do
      # The command has been seen: between its end and its shepherd's, that has no children.
      others = parent |> descendants() |> List.delete(os_pid)
      ticks = for pid <- others, {:ok, _, _, ticks} <- [stat(pid)], do: ticks

      %__MODULE__{
        state: state,
        cpu_ms: (own_ticks + Enum.sum(ticks)) * @ms_per_tick,
        memory: Enum.sum(for pid <- [os_pid | others], do: memory(pid))
      }
    end
  end

  # Its own time, and that of the children that it has waited for.
  defp stat(pid) do
    with {:ok, text} <- read(pid, "stat"),
         # The name of the program stands in brackets and may have any in it.
         [_, rest] <- Regex.run(~r/.*\) (.*)/s, text) do
      [state, parent | fields] = String.split(rest)
      ticks = fields |> Enum.slice(9, 4) |> Enum.map(&String.to_integer/1) |> Enum.sum()
      {:ok, state(state), String.to_integer(parent), ticks}
    else
      _gone -> nil
    end
  end

  defp state("R"), do: "running"
  defp state("D"), do: "in disk"
  defp state(stopped) when stopped in ["T", "t"], do: "stopped"
  defp state("Z"), do: "zombie"
  defp state(_waiting), do: "sleeping"

  defp memory(pid) do
    with {:ok, text} <- read(pid, "status"),
         [_, kilobytes] <- Regex.run(~r/^VmRSS:\s+(\d+)/m, text) do
      1024 * String.to_integer(kilobytes)
    else
      _gone -> 0
    end
  end

  defp descendants(pid), do: walk([pid], [])

  defp walk([pid | rest], found) when length(found) < @most do
    children = children(pid)
    walk(rest ++ children, found ++ children)
  end

  defp walk(_rest, found), do: found

  # Each thread has a list of its own.
  defp children(pid) do
    case File.ls("/proc/#{pid}/task") do
      {:ok, threads} ->
        for thread <- threads,
            {:ok, text} <- [read(pid, "task/#{thread}/children")],
            child <- String.split(text),
            do: String.to_integer(child)

      {:error, _gone} ->
        []
    end
  end

  defp read(pid, name), do: File.read("/proc/#{pid}/#{name}")
end
