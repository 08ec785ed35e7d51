defmodule NetRunner.Process.Asker do
  @moduledoc false
  # The process to which output is sent as it asks for it, as pure data. There is one at a time.

  # `credit`: how many pieces it may still be sent. `open`: the streams of which it has not been told the end.
  # `exit`: whether it has been told that of the command, which comes last.
  @enforce_keys [:pid, :monitor, :open]
  defstruct [:pid, :monitor, :open, credit: 0, exit: :untold]

  @type t :: %__MODULE__{
          pid: pid(),
          monitor: reference(),
          open: [:stdout | :stderr],
          credit: non_neg_integer(),
          exit: :untold | :told
        }

  @doc "Whether it still has to be told the end of a stream."
  @spec follows?(t() | nil, :stdout | :stderr) :: boolean()
  def follows?(nil, _stream), do: false
  def follows?(asker, stream), do: stream in asker.open
end
