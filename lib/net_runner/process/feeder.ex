defmodule NetRunner.Process.Feeder do
  @moduledoc false
  # The process that produces a command's input, as the command's server sees it.
  #
  # When the command reads no more, the feeder's next write says so. The feeder then leaves the user's code like an
  # enumeration that stops early, so that its cleanup runs. A feeder that does not write gets no such answer, and may go on
  # producing for ever, so it is killed when its command is gone.

  # In ms: how long a feeder may take to notice that its command is gone, and then for its cleanup.
  @notice 50
  @cleanup 5_000

  # On a busy machine it may not run at all in that time. With so many reductions it could have heard: some milliseconds of its own.
  # One that runs and comes to no more of them waits in a NIF, such as for a file.
  @enough 200_000

  @mark :net_runner_feeder

  @doc "Called by the feeder: it is about to write, so it will learn whether its command still reads; or it produces the next piece."
  @spec mark(:writes | :produces) :: :ok
  def mark(what) do
    _ = Process.put(@mark, what)
    :ok
  end

  @doc "The exit reason of a process that helps to produce the input, when the command reads no more."
  @spec unwanted(pid()) :: {:shutdown, term()}
  def unwanted(server), do: {:shutdown, {__MODULE__, :unwanted, server}}

  @doc """
  Called by the feeder, when it begins: when the server is gone, in whatever way, the feeder finds out by itself, or is
  killed.
  """
  @spec see_off_after(pid()) :: :ok
  def see_off_after(server) do
    feeder = self()
    _ = spawn(fn -> see_off(Process.monitor(feeder), feeder, Process.monitor(server)) end)
    :ok
  end

  defp see_off(monitor, feeder, server) do
    receive do
      {:DOWN, ^monitor, _, _, _} ->
        :ok

      {:DOWN, ^server, _, _, _} ->
        before = reductions(feeder)

        unless leaves?(monitor, feeder, before, before + @enough, div(@cleanup, @notice)),
          do: Process.exit(feeder, :kill)
    end
  end

  defp leaves?(_monitor, _feeder, _before, _enough, 0), do: false

  defp leaves?(monitor, feeder, before, enough, times) do
    cond do
      gone?(monitor, @notice) ->
        true

      hears?(feeder) ->
        gone?(monitor, @cleanup)

      true ->
        status = status(feeder)
        now = reductions(feeder)
        wants_to_run? = status != :waiting and not (status == :running and now == before)

        wants_to_run? and now < enough and
          leaves?(monitor, feeder, now, enough, times - 1)
    end
  end

  defp status(feeder) do
    with {:status, status} <- Process.info(feeder, :status), do: status
  end

  defp reductions(feeder) do
    with {:reductions, reductions} <- Process.info(feeder, :reductions),
         do: reductions,
         else: (nil -> 0)
  end

  defp gone?(monitor, patience) do
    receive do
      {:DOWN, ^monitor, _, _, _} -> true
    after
      patience -> false
    end
  end

  # Race: killed before it hears.
  defp hears?(feeder) do
    case Process.info(feeder, :dictionary) do
      {:dictionary, dictionary} -> List.keyfind(dictionary, @mark, 0) == {@mark, :writes}
      nil -> true
    end
  end
end
