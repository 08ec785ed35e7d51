defmodule NetRunner.Helper do
  @moduledoc false
  # Programs in the place of NetRunner's helper program.

  import ExUnit.Callbacks, only: [on_exit: 1]
  import ExUnit.CaptureLog, only: [capture_log: 1]

  @doc "A helper that is this shell script. The library listens on its descriptor 3."
  def script(script) do
    path = NetRunner.Temporary.path("helper")

    on_exit(fn -> File.rm(path) end)
    File.write!(path, "#!/bin/sh\n#{script}\n")
    File.chmod!(path, 0o755)
    path
  end

  def real, do: Application.app_dir(:net_runner, "priv/net_runner_shepherd")

  @doc """
  Calls the function while the real helper is there, started after this shell script: all helpers have the limits and the cgroup
  that it gives itself. Gives `:not_started` when the application does not start with it.
  """
  def with_real_after(script, fun) do
    path = script(script <> "; exec #{real()} \"$@\"")
    on_exit(&start_ordinary/0)

    try do
      case restart(&Application.put_env(:net_runner, :helper, path, &1)) do
        {:ok, _} -> fun.()
        {:error, _} -> :not_started
      end
    after
      start_ordinary()
    end
  end

  defp start_ordinary do
    {:ok, _} = restart(&Application.delete_env(:net_runner, :helper, &1))
  end

  defp restart(set) do
    capture_log(fn ->
      _ = Application.stop(:net_runner)
      :ok = set.([])
      send(self(), {:restarted, Application.ensure_all_started(:net_runner)})
    end)

    receive do: ({:restarted, result} -> result)
  end
end
