defmodule NetRunner.Process.Client do
  @moduledoc false
  # How a command's server is asked.

  @doc "Asks, and waits for the answer, however long that takes."
  @spec call(GenServer.server(), term()) :: term()
  def call(process, request) do
    GenServer.call(process, request, :infinity)
  catch
    :exit, {{:nodedown, _}, {GenServer, :call, _}} -> {:error, {:node, :disconnected}}
    # It was not there, or ended before it could answer.
    :exit, {_reason, {GenServer, :call, _}} -> {:error, :closed}
  end
end
