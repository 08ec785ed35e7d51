defmodule NetRunner.Process.Feeder do
  @moduledoc false
  # The process that produces a command's input, as the command's server sees it.
  #
  # When the command has had enough, the feeder hears so at its next write, and leaves what it runs as an
  # enumeration is left early, so that its cleanup runs. One that waits for something else hears nothing. So that
  # nothing goes on being produced for a command that is gone, it is killed then.

  # What a feeder gets to hear that its command is gone, and then for its cleanup, in ms.
  @notice 50
  @cleanup 5_000

  @mark :net_runner_feeder

  @doc "Called by the feeder: it is about to write, so it hears what becomes of its command; or it produces the next."
  @spec mark(:writes | :produces) :: :ok
  def mark(what) do
    _ = Process.put(@mark, what)
    :ok
  end

  @doc "The reason of whoever works for the input of this server, and hears that its command has had enough."
  @spec unwanted(pid()) :: {:shutdown, term()}
  def unwanted(server), do: {:shutdown, {__MODULE__, :unwanted, server}}

  @doc "Called by the server when it ends: the feeder finds out by itself, or is killed."
  @spec let_go(pid()) :: :ok
  def let_go(feeder) do
    # Where the feeder is: only there it can be looked at.
    _ = :erlang.spawn(node(feeder), __MODULE__, :see_off, [feeder])
    :ok
  end

  @doc false
  @spec see_off(pid()) :: :ok | true
  def see_off(feeder) do
    monitor = Process.monitor(feeder)

    unless gone?(monitor, @notice) or (hears?(feeder) and gone?(monitor, @cleanup)) do
      Process.exit(feeder, :kill)
    end
  end

  defp gone?(monitor, patience) do
    receive do
      {:DOWN, ^monitor, _, _, _} -> true
    after
      patience -> false
    end
  end

  # Of one that writes, this is certain, also where the machine is so busy that it has not run since.
  defp hears?(feeder) do
    case Process.info(feeder, :dictionary) do
      {:dictionary, dictionary} -> List.keyfind(dictionary, @mark, 0) == {@mark, :writes}
      nil -> true
    end
  end
end
