defmodule Peer.MixProject do
  # Takes the place of a library's own project file, so that it needs no dependency and no other build tool. $PEER is its
  # name.
  use Mix.Project

  @app System.fetch_env!("PEER") |> String.to_atom()

  def project, do: [app: @app, version: version(), deps: [], consolidate_protocols: false]

  # What starts the processes of a library.
  @start Map.get(
           %{
             exile: [mod: {Exile, []}],
             net_runner: [mod: {NetRunner.Application, []}],
             erlexec: [mod: {:exec_app, []}, registered: [:exec]]
           },
           @app,
           []
         )

  def application, do: [extra_applications: [:logger, :crypto]] ++ @start

  defp version do
    {file, pattern} =
      if @app == :erlexec,
        do: {"src/erlexec.app.src", ~r/{vsn, *"([^"]+)"}/},
        else: {"mix.exs", ~r/@version "([^"]+)"/}

    [_, version] = Regex.run(pattern, File.read!(file))
    version
  end
end
