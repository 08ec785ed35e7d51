defmodule NetRunner.Process.SinkTest do
  # Stdin as a `Collectable`.
  use ExUnit.Case, async: true

  import NetRunner.Started

  alias NetRunner.Process, as: Command

  test "each element is written, and stdin stays open" do
    p = start!("exec cat")
    sink = Command.sink(p)
    assert Enum.into(["a", ["b", ?c]], sink) == sink
    assert Enum.into(Stream.map(1..2, &to_string/1), sink) == sink
    :ok = Command.close_stdin(p)
    assert NetRunner.Process.read_until(p, "never") == :eof
    assert Command.read(p) == {:ok, "abc12"}
  end

  test "close: true closes it at the end, and not when the source raises" do
    p = start!("exec cat")
    source = Stream.map(1..3, fn n -> if n < 3, do: "#{n}", else: raise("no more") end)
    assert_raise RuntimeError, fn -> Enum.into(source, Command.sink(p, close: true)) end
    assert Command.write(p, "x") == :ok
    Enum.into(["y"], Command.sink(p, close: true))
    assert Command.read_until(p, "never") == :eof
    assert Command.read(p) == {:ok, "12xy"}
    assert Command.write(p, "z") == {:error, :closed}
  end

  test "a reader that is gone raises, and the error says of whom" do
    p = start!("echo oops >&2; exec <&-; echo closed; exec sleep 1000")
    assert Command.read(p) == {:ok, "closed\n"}

    error =
      assert_raise NetRunner.Error, fn -> Enum.into(Stream.cycle(["x"]), Command.sink(p)) end

    assert %{reason: :epipe, command: ["sh", "-c", _], stderr: "oops\n"} = error
    Command.stop(p)
    error = assert_raise NetRunner.Error, fn -> Enum.into(["x"], Command.sink(p)) end
    assert error.reason == :closed
    assert Exception.message(error) =~ "closed"
    error = assert_raise NetRunner.Error, fn -> Enum.into([], Command.sink(p, close: true)) end
    assert error.reason == :closed
  end

  test "an option that nobody knows is named" do
    p = start!("exit 0")

    assert_raise ArgumentError, ~r/unknown option :shut; this function takes :close/, fn ->
      Command.sink(p, shut: 1)
    end
  end
end
