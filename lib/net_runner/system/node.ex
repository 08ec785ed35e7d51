defmodule NetRunner.System.Node do
  @moduledoc false
  # Commands on other nodes. The server of such a command runs on the command's node, and Erlang's distribution does the
  # rest: a read or a write is a `GenServer.call`, and the monitor of the owner and the link of the feeder work across
  # nodes, and fire when the connection is lost. So only the start has to know of nodes.

  @typedoc "Why a node cannot run a command."
  @type reason ::
          :not_connected
          | :no_net_runner
          | :not_started
          | {:version, theirs :: String.t()}
          | :disconnected

  @doc """
  Calls a function that starts a command on another node. If it returns `{:error, :not_started}`, NetRunner does not run
  there.
  """
  @spec start(node(), {module(), atom(), [term()]}) :: {:ok, pid()} | {:error, term()}
  def start(node, function) do
    # Otherwise the call would connect first, which may take as long as a connection takes to fail.
    if node in Node.list(:connected),
      do: call(node, [version(), function]),
      else: {:error, {:node, :not_connected}}
  end

  defp call(node, arguments) do
    :erpc.call(node, __MODULE__, :start_here, arguments)
  catch
    :error, {:erpc, _} -> {:error, {:node, :disconnected}}
    :error, {:exception, :undef, [{__MODULE__, _, _, _} | _]} -> {:error, {:node, :no_net_runner}}
  end

  @doc "What `start/2` calls on the other node."
  @spec start_here(String.t(), {module(), atom(), [term()]}) :: {:ok, pid()} | {:error, term()}
  def start_here(wanted, {module, function, arguments}) do
    case version() do
      nil ->
        {:error, {:node, :not_started}}

      ^wanted ->
        with {:error, :not_started} <- apply(module, function, arguments),
             do: {:error, {:node, :not_started}}

      version ->
        {:error, {:node, {:version, version}}}
    end
  end

  # `nil` if the application is not loaded.
  defp version do
    with version when version != nil <- Application.spec(:net_runner, :vsn), do: "#{version}"
  end
end
