defmodule NetRunner.Process.Client do
  @moduledoc false
  # How a command's server is asked.

  alias NetRunner.Options.Kind

  @doc "Asks, and waits for the answer, however long that takes."
  @spec call(GenServer.server(), term()) :: term()
  def call(process, request) do
    GenServer.call(process, request, :infinity)
  catch
    :exit, {{:nodedown, _}, {GenServer, :call, _}} -> {:error, {:node, :disconnected}}
    # It was not there, or ended before it could answer.
    :exit, {_reason, {GenServer, :call, _}} -> {:error, :closed}
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
