defmodule NetRunner.Sandbox do
  @moduledoc """
  What a command may touch: the option `:sandbox`, which every function that runs a command takes.

      iex> NetRunner.run(~w(cat /etc/passwd), sandbox: [read: ["/usr", "/lib", "/lib64"]])
      {"", 1}
      iex> {passwd, 0} = NetRunner.run(~w(cat /etc/passwd), sandbox: [read: [:system]])
      iex> passwd =~ "root"
      true
  """

  alias NetRunner.Sandbox.{Policy, Preset}

  @type layer :: Policy.layer()
  @type in_force :: Policy.in_force()
  @type t :: keyword()

  @doc "The paths that a preset stands for. Those that a machine does not have are passed over."
  @spec preset(:system) :: [Path.t()]
  def preset(:system), do: Preset.paths(:system)
end
