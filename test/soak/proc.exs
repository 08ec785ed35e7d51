defmodule Soak.Proc do
  @moduledoc false
  # What /proc says.

  @doc "Waits; `:late` when it takes longer than a minute."
  def await(condition, timeout \\ 60_000) do
    await_until(condition, System.monotonic_time(:millisecond) + timeout)
  end

  # /proc has no events.
  defp await_until(condition, deadline) do
    cond do
      condition.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        :late

      true ->
        Process.sleep(10)
        await_until(condition, deadline)
    end
  end

  def pids do
    for name <- File.ls!("/proc"), {pid, ""} <- [Integer.parse(name)], do: pid
  end

  @doc "The processes whose environment has this mark."
  def marked(mark), do: Enum.filter(pids(), &marked?(&1, mark))

  def marked?(pid, mark) do
    case File.read("/proc/#{pid}/environ") do
      {:ok, environment} -> environment =~ mark
      {:error, _} -> false
    end
  end

  def parent(pid), do: stat(pid)[:parent]

  @doc "Whether it is there and no zombie."
  def alive?(pid), do: stat(pid)[:state] not in [nil, "Z", "X"]

  defdelegate stat(pid), to: NetRunner.Guarantees.Tree

  @doc "All processes below one, zombies too."
  def descendants(root) do
    children = Enum.group_by(pids(), &parent/1)
    below(root, children)
  end

  defp below(pid, children) do
    Enum.flat_map(Map.get(children, pid, []), &[&1 | below(&1, children)])
  end

  @doc "A figure of /proc/PID/status, such as `RssAnon` in KiB; `nil` when the process is gone."
  def status(pid, name), do: figure("/proc/#{pid}/status", name)

  @doc "The proportional share of memory in KiB (proc(5), smaps_rollup)."
  def pss(pid), do: figure("/proc/#{pid}/smaps_rollup", "Pss")

  defp figure(file, name) do
    with {:ok, text} <- File.read(file),
         [_, number] <- Regex.run(~r/^#{name}:\s+(\d+)/m, text) do
      String.to_integer(number)
    else
      _ -> nil
    end
  end

  def fds, do: length(File.ls!("/proc/#{System.pid()}/fd"))
end
