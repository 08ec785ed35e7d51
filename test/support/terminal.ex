defmodule NetRunner.Test.Terminal do
  @moduledoc false
  # Another VM that runs this code on a terminal, of which the test is the other end.

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  # Room for a machine that is ten times slower.
  @patience_ms 60_000

  @doc "Starts it, with NetRunner started before `code` runs. `options`: further ones of the command."
  def start(code, options \\ []) do
    code = "{:ok, _} = Application.ensure_all_started(:net_runner); #{code}"
    [executable | args] = Tree.elixir(code)
    {:ok, vm} = Command.start(executable, args, options(options))
    vm
  end

  @doc "As `start/2`, with IEx at the terminal."
  def start_iex do
    ["elixir", "-pa", ebin | _] = Tree.elixir("")
    {:ok, vm} = Command.start("iex", ["-pa", ebin], options([]))
    vm
  end

  defp options(options) do
    env = [{"TERM", "xterm"}, {"LC_ALL", "C.UTF-8"} | Tree.elixir_env()]
    [env: env, pty: [rows: 20, cols: 80, echo: false]] ++ options
  end

  @doc "Everything up to a match, and the match. Raises with what came instead."
  def until(vm, pattern) do
    case Command.read_until(vm, pattern, timeout: @patience_ms, max_bytes: 1_000_000) do
      {:ok, {before, match}} -> before <> match
      other -> raise "#{inspect(pattern)} did not come (#{inspect(other)}): #{inspect(rest(vm))}"
    end
  end

  defp rest(vm) do
    case Command.read(vm, 65_535, 0) do
      {:ok, bytes} -> bytes
      other -> other
    end
  end

  @doc "Types a line."
  def type(vm, line), do: :ok = Command.write(vm, line <> "\n")

  @doc """
  The lines that are seen in the end, of what only returns to the start of its line, erases from there on, and goes up.
  Those at the bottom of the terminal and above are not different for a text that is not longer than it.
  """
  def screen(output) do
    ~r/\e\[(\d*)([A-Z])|\r|\n|[^\r\n\e]+/
    |> Regex.scan(output)
    |> Enum.reduce({[], {"", ""}, []}, &seen/2)
    |> then(fn {above, {left, right}, below} -> Enum.reverse(above, [left <> right | below]) end)
  end

  # The lines above the cursor, nearest first; its own, left and right of it; and those below.
  defp seen(["\n"], {above, {left, right}, []}), do: {[left <> right | above], {"", ""}, []}

  defp seen(["\n"], {above, {left, right}, [next | below]}),
    do: {[left <> right | above], {"", next}, below}

  defp seen(["\r"], {above, {left, right}, below}), do: {above, {"", left <> right}, below}
  defp seen([_, "", "K"], {above, {left, _right}, below}), do: {above, {left, ""}, below}
  defp seen([_, "", "J"], {above, {left, _right}, _below}), do: {above, {left, ""}, []}

  defp seen([_, count, "A"], {above, {left, right}, below}) do
    {up, above} = Enum.split(above, String.to_integer(count))
    [line | below] = Enum.reverse(up, [left <> right | below])
    # To the start of the line, where what is shown here goes next.
    {above, {"", line}, below}
  end

  # Over what stands there.
  defp seen([text], {above, {left, right}, below}),
    do: {above, {left <> text, String.slice(right, String.length(text)..-1//1)}, below}
end
