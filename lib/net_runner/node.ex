defmodule NetRunner.Node do
  @moduledoc false
  # Commands on other nodes. The server of such a command is started on the node where the command
  # runs, and all else is Erlang's distribution: a read or a write is a `GenServer.call`, the owner's
  # monitor and the feeder's link hold across nodes and fire when the connection goes. So nothing but
  # the start has to know of nodes.

  alias NetRunner.Process.Server

  @typedoc "Why a node cannot run a command."
  @type reason ::
          :not_connected
          | :no_net_runner
          | :not_started
          | {:version, theirs :: String.t()}
          | :disconnected

  @doc "As `NetRunner.Process.Server.start/3`, on another node. The options name their owner."
  @spec start(node(), [String.t()], map(), keyword()) :: {:ok, pid()} | {:error, term()}
  def start(node, command, options, extra) do
    # A call would connect by itself, and may wait for that as long as a connection takes to fail.
    if node in Node.list(:connected) do
      # What it enumerates may exist on this node only.
      options = %{options | node: nil, env: Enum.to_list(options.env)}
      call(node, [version(), command, options, extra])
    else
      {:error, {:node, :not_connected}}
    end
  end

  defp call(node, arguments) do
    :erpc.call(node, __MODULE__, :start_here, arguments)
  catch
    :error, {:erpc, _} -> {:error, {:node, :disconnected}}
    :error, {:exception, :undef, [{__MODULE__, _, _, _} | _]} -> {:error, {:node, :no_net_runner}}
  end

  @doc "What `start/4` calls on the other node."
  @spec start_here(String.t(), [String.t()], map(), keyword()) :: {:ok, pid()} | {:error, term()}
  def start_here(wanted, command, options, extra) do
    case version() do
      nil ->
        {:error, {:node, :not_started}}

      ^wanted ->
        with {:error, :not_started} <- Server.start(command, options, extra),
             do: {:error, {:node, :not_started}}

      version ->
        {:error, {:node, {:version, version}}}
    end
  end

  # `nil` where the application is not even loaded.
  defp version do
    with version when version != nil <- Application.spec(:net_runner, :vsn), do: "#{version}"
  end
end
