defmodule Mix.Tasks.NetRunner.Doctor do
  @shortdoc "Says what of NetRunner works on this machine"

  @moduledoc """
  Prints what works on this machine, and what to do where something does not.

      $ mix net_runner.doctor

  It compiles the project, if that is needed, and does not start it. The exit status is 1 when something does not work that NetRunner's
  guarantees need, else 0. `NetRunner.Doctor` has the same for a release.
  """

  use Mix.Task

  alias NetRunner.Doctor

  @impl true
  def run(args) do
    if args != [], do: Mix.raise("mix net_runner.doctor takes no arguments")
    Mix.Task.run("app.config")
    findings = Doctor.examine()
    Mix.shell().info(Doctor.report(findings))
    if Doctor.failed?(findings), do: exit({:shutdown, 1})
  end
end
