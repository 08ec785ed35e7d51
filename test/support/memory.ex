defmodule NetRunner.Memory do
  @moduledoc false
  # How much of a command's output this VM may be holding.

  @doc """
  The bytes of binaries outside the heaps, as each piece of output of more than 64 bytes is, after a garbage collection of
  every process. The memory of the whole VM (`:total`) says nothing here: it grows by a megabyte when a test is the first to
  use some modules.
  """
  def of_binaries do
    for process <- Process.list(), do: :erlang.garbage_collect(process)
    :erlang.memory(:binary)
  end
end
