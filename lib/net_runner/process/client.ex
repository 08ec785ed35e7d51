defmodule NetRunner.Process.Client do
  @moduledoc false
  # How a command's server is asked.

  alias NetRunner.Options.Kind

  # Names that Process.register/2 refuses.
  @no_names [nil, false, true, :undefined]

  @doc "Asks, and waits for the answer, however long that takes. Raises when a daemon is asked."
  @spec call(GenServer.server(), term()) :: term()
  def call(process, request) do
    with {:error, {:daemon, command}} <- ask(process, request) do
      raise ArgumentError,
            "#{inspect(process)} is the NetRunner.Daemon of `#{command}`: use the functions of NetRunner.Daemon, or " <>
              "GenServer.stop/1 to stop it, and not those of NetRunner.Process"
    end
  end

  defp ask(process, request) do
    GenServer.call(server!(process), request, :infinity)
  catch
    :exit, {{:nodedown, _}, {GenServer, :call, _}} -> {:error, {:node, :disconnected}}
    # It was not there, or ended before it could answer.
    :exit, {_reason, {GenServer, :call, _}} -> {:error, :closed}
  end

  @doc "Gives it back if it can name a process, and raises otherwise."
  @spec server!(GenServer.server()) :: GenServer.server()
  def server!(pid) when is_pid(pid), do: pid
  def server!(name) when is_atom(name) and name not in @no_names, do: name
  def server!({:global, _} = name), do: name
  def server!({:via, module, _} = name) when is_atom(module), do: name
  def server!({name, node} = there) when is_atom(name) and is_atom(node), do: there

  def server!({:ok, pid}) when is_pid(pid) do
    raise ArgumentError,
          "a process must be a pid or a name, got: {:ok, pid}; match it before: {:ok, p} = ..."
  end

  def server!(other) do
    got = if other in @no_names, do: inspect(other), else: Kind.of(other)
    raise ArgumentError, "a process must be a pid or a name, got: #{got}"
  end

  @doc "What is to be written to a command. Neither the error nor its stacktrace shows it: it may be secret."
  @spec iovec!(iodata()) :: [binary()]
  def iovec!(iodata) do
    :erlang.iolist_to_iovec(iodata)
  rescue
    ArgumentError ->
      wrong =
        if is_list(iodata),
          do:
            "a list that contains something that is neither a string nor a byte nor a list of these",
          else: Kind.of(iodata)

      raise ArgumentError, "what is written must be iodata, got: #{wrong}"
  end
end
