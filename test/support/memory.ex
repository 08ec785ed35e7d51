defmodule NetRunner.Memory do
  @moduledoc false
  # How much of a command's output this VM may be holding.

  @doc """
  The bytes of binaries, in which all output arrives, after a garbage collection of every process. That of the VM as a whole
  (`:total`) says nothing here: it grows by a megabyte when a test is the first to use some modules.
  """
  def of_binaries do
    for process <- Process.list(), do: :erlang.garbage_collect(process)
    :erlang.memory(:binary)
  end
end
