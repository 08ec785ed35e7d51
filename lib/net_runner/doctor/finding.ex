defmodule NetRunner.Doctor.Finding do
  @moduledoc """
  What `NetRunner.Doctor.examine/0` has found out about one topic.

  | field | |
  |---|---|
  | `topic` | an atom, such as `:commands` or `:cgroups` |
  | `state` | `:ok`; `:warning`: something that not every application needs does not work; `:failed`: commands cannot be run, or what `docs/guarantees.md` promises does not hold |
  | `seen` | what was seen, in words |
  | `advice` | what to do, in words; `nil` when there is nothing to do |
  """

  @enforce_keys [:topic, :state, :seen]
  defstruct [:topic, :state, :seen, :advice]

  @type t :: %__MODULE__{
          topic: atom(),
          state: :ok | :warning | :failed,
          seen: String.t(),
          advice: String.t() | nil
        }

  @doc false
  def ok(topic, seen), do: %__MODULE__{topic: topic, state: :ok, seen: seen}

  @doc false
  def warning(topic, seen, advice),
    do: %__MODULE__{topic: topic, state: :warning, seen: seen, advice: advice}

  @doc false
  def failed(topic, seen, advice),
    do: %__MODULE__{topic: topic, state: :failed, seen: seen, advice: advice}
end
