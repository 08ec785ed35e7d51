defmodule NetRunner.Guarantees.Hostile do
  @moduledoc false
  # The programs of `test/guarantees/hostile_test.exs`.

  @folder Path.expand("../guarantees", __DIR__)
  @script Path.join(@folder, "hostile.py")

  @doc "The shapes of programs that try to get away."
  def shapes do
    ~w(moved_leader moved_leader_with_group sessions stopped holds_zombies traced traced_orphan
       forks_and_moves)a
  end

  def script, do: @script

  @doc "Those in C, compiled for a module of tests, by name."
  def compile do
    directory = NetRunner.Temporary.path("hostile")
    File.mkdir_p!(directory)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(directory) end)

    for name <- ~w(forks_and_moves makes_siblings out_of_reach)a, into: %{} do
      program = Path.join(directory, "#{name}")
      {_, 0} = System.cmd("gcc", ["-O2", "-o", program, Path.join(@folder, "#{name}.c")])
      {name, program}
    end
  end

  @doc "The command line of a shape; the second argument are the programs of `compile/0`, or arguments."
  def command(shape, %{} = programs), do: command(shape, List.wrap(programs[shape]))

  def command(name, arguments), do: ["python3", "-S", "-E", @script, "#{name}" | arguments]
end
