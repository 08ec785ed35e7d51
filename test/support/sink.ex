defmodule NetRunner.Sink do
  @moduledoc false
  # A collectable that is a function of what it is told.

  defstruct [:fun]

  defimpl Collectable do
    def into(%{fun: fun}), do: {:start, fun}
  end
end
