defmodule NetRunner.Started do
  @moduledoc false
  # A shell script that runs for as long as its test.

  @doc "Starts it, and stops it when the test is over."
  def start!(script, options \\ []) do
    {:ok, p} = NetRunner.Process.start("sh", ["-c", script], options)
    ExUnit.Callbacks.on_exit(fn -> NetRunner.Process.stop(p) end)
    p
  end
end
