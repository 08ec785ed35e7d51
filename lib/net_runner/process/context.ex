defmodule NetRunner.Process.Context do
  @moduledoc false
  # What a process that runs a user's code inherits from the process that it works for: `$callers`, as a `Task` does, by
  # which sandboxes and mocks find their test; the metadata of Logger; and the group leader: where it prints, and the application that
  # it ends with.

  @enforce_keys [:callers, :ancestors, :metadata, :group_leader]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          callers: [pid()],
          ancestors: [pid() | atom()],
          metadata: keyword(),
          group_leader: pid()
        }

  @doc "The context of the calling process, for a process that will work for it."
  @spec capture() :: t()
  def capture do
    %__MODULE__{
      callers: [self() | Process.get(:"$callers", [])],
      ancestors: [self() | Process.get(:"$ancestors", [])],
      metadata: Logger.metadata(),
      group_leader: Process.group_leader()
    }
  end

  @doc "Makes it the context of the calling process. Ancestors that OTP has noted stay."
  @spec adopt(t()) :: :ok
  def adopt(%__MODULE__{} = context) do
    Process.put(:"$callers", context.callers)
    Process.put(:"$ancestors", Process.get(:"$ancestors") || context.ancestors)
    Process.group_leader(self(), context.group_leader)
    Logger.metadata(context.metadata)
  end
end
