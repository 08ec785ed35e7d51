defmodule NetRunner.Temporary do
  @moduledoc false
  # Names that nobody else uses, also where several runs of the tests share a machine. What a test makes under one it removes.

  def name(what),
    do: "net_runner_#{what}_#{System.pid()}_#{System.unique_integer([:positive])}"

  @doc "Whether a line names what belongs to another run of the tests."
  def another_run?(line) do
    case Regex.run(~r/net_runner_\w+_(\d+)_\d+/, line, capture: :all_but_first) do
      [pid] -> pid != System.pid()
      nil -> false
    end
  end

  @doc "Where nothing is yet."
  def path(what, extension \\ ""), do: Path.join(System.tmp_dir!(), name(what) <> extension)
end
