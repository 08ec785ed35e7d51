defmodule NetRunner.Process.Feeder do
  @moduledoc false
  # The process that produces a command's input, as the command's server sees it.
  #
  # When the command reads no more, the feeder's next write says so. The feeder then leaves the user's code like an
  # enumeration that stops early, so that its cleanup runs. A feeder that does not write gets no such answer, and may go on
  # producing for ever, so it is killed when its command is gone or was given up (`Usher`).

  @mark :net_runner_feeder

  @doc "Called by the feeder: it is about to write, so it will learn whether its command still reads; or it produces the next piece."
  @spec mark(:writes | :produces) :: :ok
  def mark(what) do
    _ = Process.put(@mark, what)
    :ok
  end

  @doc "The exit reason of a process that helps to produce the input, when the command reads no more."
  @spec unwanted(pid()) :: {:shutdown, term()}
  def unwanted(server), do: {:shutdown, {__MODULE__, :unwanted, server}}

  @doc "Whether it is writing, so that it will hear, or is gone."
  @spec writes?(pid()) :: boolean()
  def writes?(feeder) do
    case Process.info(feeder, :dictionary) do
      {:dictionary, dictionary} -> List.keyfind(dictionary, @mark, 0) == {@mark, :writes}
      nil -> true
    end
  end
end
