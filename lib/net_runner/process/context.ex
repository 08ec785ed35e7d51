defmodule NetRunner.Process.Context do
  @moduledoc false
  # What a process that runs a user's code inherits from the one that it works for: `$callers`, as a `Task` does, by
  # which test sandboxes and mocks find the test, and the metadata of Logger, by which log lines are traced.

  @enforce_keys [:callers, :ancestors, :metadata]
  defstruct @enforce_keys

  @type t :: %__MODULE__{callers: [pid()], ancestors: [pid() | atom()], metadata: keyword()}

  @doc "That of the calling process, for one that is to work for it."
  @spec capture() :: t()
  def capture do
    %__MODULE__{
      callers: [self() | Process.get(:"$callers", [])],
      ancestors: [self() | Process.get(:"$ancestors", [])],
      metadata: Logger.metadata()
    }
  end

  @doc "Makes it that of the calling process. What OTP itself has noted as its ancestors stays."
  @spec adopt(t()) :: :ok
  def adopt(%__MODULE__{} = context) do
    Process.put(:"$callers", context.callers)
    Process.put(:"$ancestors", Process.get(:"$ancestors") || context.ancestors)
    Logger.metadata(context.metadata)
  end
end
