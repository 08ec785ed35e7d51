defmodule NetRunner.TerminalTest do
  # What is true of a terminal (`:pty`) alone.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  describe "a command that has closed its terminal, and opens it again," do
    @closed "echo first; exec < /dev/null > /dev/null 2>&1; sleep 0.5; exec < /dev/tty > /dev/tty 2>&1; "
    # More than a terminal holds.
    @then_much @closed <> "seq 1 20000"
    @much IO.iodata_to_binary(["first\r\n" | Enum.map(1..20_000, &"#{&1}\r\n")])

    test "is read to its end" do
      command = ["sh", "-c", @then_much]
      assert NetRunner.run(command, pty: true) == {@much, 0}
      assert {:ok, %{stdout: @much, status: 0}} = NetRunner.capture(command, pty: true)
      assert command |> NetRunner.stream!(pty: true) |> Enum.join() == @much
    end

    test "gets what is written meanwhile, and the end of it" do
      lines = Stream.each(["one\n", "two\n"], fn _ -> Process.sleep(100) end)

      assert NetRunner.run(["sh", "-c", @closed <> "cat"], pty: [echo: false], input: lines) ==
               {"first\r\none\r\ntwo\r\n", 0}
    end

    test "is asked on" do
      {:ok, p} = Command.start("sh", ["-c", @closed <> "echo second; exit 3"], pty: true)
      :ok = Command.ask(p, 10)
      assert_receive {:net_runner, ^p, {:stdout, "first\r\n"}}, 60_000
      assert_receive {:net_runner, ^p, {:stdout, "second\r\n"}}, 60_000
      assert_receive {:net_runner, ^p, {:eof, :stdout}}, 60_000
      assert_receive {:net_runner, ^p, {:exit, 3}}, 60_000
      :ok = Command.stop(p)
    end

    test "has the size that was set meanwhile" do
      {:ok, p} = Command.start("sh", ["-c", @closed <> "stty size"], pty: true)
      {:ok, "first\r\n"} = Command.read(p)

      stdin = "/proc/#{Command.os_pid(p)}/fd/0"
      Tree.await(fn -> File.read_link(stdin) == {:ok, "/dev/null"} end)

      assert Command.set_window_size(p, 50, 132) == :ok
      assert Command.read(p) == {:ok, "50 132\r\n"}
      assert Command.await_exit(p) == {:ok, 0}
    end
  end

  @tag Tree.linux_only()
  test "a backspace takes back a character of several bytes" do
    # U+007F is the character that erases (stty(1)).
    assert NetRunner.run(["head", "-n", "1"], pty: [echo: false], input: ["xé", 127, "y\n"]) ==
             {"xy\r\n", 0}
  end
end
