defmodule NetRunner.Guarantees.InheritTest do
  # Commands that get the VM's own stdin, stdout and stderr: theirs block, whatever the VM's do, and the VM's stay as they are.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  @nonblocking 0o4000

  setup do
    file = NetRunner.Temporary.path("inherit")

    on_exit(fn -> File.rm(file) end)
    {:ok, notes: file}
  end

  test "on a terminal", %{notes: file} do
    assert {output, 0} = vm(file, [], pty: [echo: false])
    assert lines(output) == Enum.map(1..100_000, &"#{&1}")
    {before, commands, afterwards} = flags(file)
    assert Enum.all?(commands, &blocks?/1)
    assert before == afterwards
    # The VM of today does this; where one does not, the test shows less.
    if System.otp_release() == "25", do: refute(Enum.any?(before, &blocks?/1))
  end

  test "on pipes that do not block", %{notes: file} do
    assert {output, 0} = vm(file, nonblocking(""), stderr: :redirect)
    assert lines(output) == Enum.map(1..100_000, &"#{&1}")
    {[_null | before], [_ | commands], [_ | afterwards]} = flags(file)
    refute Enum.any?(before, &blocks?/1)
    assert Enum.all?(commands, &blocks?/1)
    assert before == afterwards
  end

  test "on a socket that does not block, which is refused", %{notes: file} do
    socket =
      "import socket; a, b = socket.socketpair(); a.set_inheritable(True); os.dup2(b.fileno(), 1)"

    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    File.write!(#{inspect(file)}, inspect(NetRunner.run(~w(true), stdout: :inherit)))
    """

    assert {_, 0} =
             NetRunner.run(nonblocking(socket) ++ Tree.elixir(code), env: Tree.elixir_env())

    assert File.read!(file) == "{:error, {:stdout, :eopnotsupp}}"
  end

  # A VM whose command writes more than any buffer holds, and the flags of its descriptors (fcntl(2), F_GETFL).
  defp vm(file, prefix, options) do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    file = #{inspect(file)}
    note = fn pid ->
      for n <- 0..2, line <- File.stream!("/proc/\#{pid}/fdinfo/\#{n}"), line =~ "flags", do: File.write!(file, line, [:append])
    end
    note.("self")
    all = [stdin: :inherit, stdout: :inherit, stderr: :inherit]
    show = "for n in 0 1 2; do grep flags /proc/$$/fdinfo/$n >> \#{file}; done"
    {"", 0} = NetRunner.run(["sh", "-c", show], all)
    {"", 0} = NetRunner.run(~w(seq 100000), all)
    note.("self")
    """

    NetRunner.run(prefix ++ Tree.elixir(code), [env: Tree.elixir_env()] ++ options)
  end

  defp nonblocking(before) do
    script = """
    import os, sys
    #{before}
    for n in (0, 1, 2): os.set_blocking(n, False)
    os.execvp(sys.argv[1], sys.argv[1:])
    """

    ["python3", "-c", script]
  end

  defp flags(file) do
    numbers = for line <- lines(File.read!(file)), do: line |> String.split() |> List.last()
    [before, commands, afterwards] = Enum.chunk_every(numbers, 3)
    {before, commands, afterwards}
  end

  defp blocks?(flags), do: Bitwise.band(String.to_integer(flags, 8), @nonblocking) == 0
  defp lines(output), do: String.split(output, ["\r\n", "\n"], trim: true)
end
