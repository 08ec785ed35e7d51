defmodule NetRunner.SignalTest do
  use ExUnit.Case, async: true

  alias NetRunner.Signal

  @posix ~w(abrt alrm bus chld cont fpe hup ill int kill pipe quit segv stop term tstp ttin ttou usr1 usr2
            prof sys trap urg vtalrm xcpu xfsz winch)

  test "names and numbers are those of the system, in both directions" do
    listed = shell_signals()
    assert map_size(listed) > 31

    for {number, name} <- listed do
      assert Signal.name(number) == {:ok, name}
      assert Signal.resolve(name) == {:ok, number}
      assert Signal.resolve(number) == {:ok, number}
    end

    unknown = Enum.to_list(-1..130) -- Map.keys(listed)
    for number <- unknown, do: assert(Signal.name(number) == {:error, :unknown_signal})
    for number <- unknown, do: assert(Signal.resolve(number) == {:error, :unknown_signal})
  end

  test "every signal of POSIX has a name" do
    for name <- @posix do
      assert {:ok, number} = Signal.resolve(String.to_atom("sig" <> name))
      assert Signal.name(number) == {:ok, String.to_atom("sig" <> name)}
    end
  end

  test "a real-time signal is known from both ends" do
    for {:ok, lowest} <- [Signal.resolve(:sigrtmin)],
        {:ok, highest} <- [Signal.resolve(:sigrtmax)] do
      for n <- 1..(highest - lowest - 1) do
        assert Signal.resolve(:"sigrtmin+#{n}") == {:ok, lowest + n}
        assert Signal.resolve(:"sigrtmax-#{n}") == {:ok, highest - n}
      end
    end

    assert Signal.resolve(:"sigrtmin+0") == {:error, :unknown_signal}
    assert Signal.resolve(:"sigrtmin+31") == {:error, :unknown_signal}
    assert Signal.resolve("sigterm") == {:error, :unknown_signal}
  end

  test "a command gets the signal of that name" do
    # Bash runs a trap of SIGCHLD for its children alone.
    for {number, name} <- shell_signals(), name not in [:sigkill, :sigstop, :sigchld] do
      script = "trap 'echo #{number}; exit' #{number}; echo ready; while :; do :; done"
      assert_gets({number, name}, ["bash", "-c", script])
    end
  end

  test "a command gets SIGCHLD" do
    script = """
    import os, signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    os.write(1, b"ready\\n")
    os.write(1, b"%d\\n" % signal.sigwait({signal.SIGCHLD}))
    """

    assert_gets({17, :sigchld}, ["python3", "-c", script])
  end

  defp assert_gets({number, name}, [executable | args]) do
    {:ok, p} = NetRunner.Process.start(executable, args)
    assert NetRunner.Process.read(p) == {:ok, "ready\n"}
    assert NetRunner.Process.kill(p, name) == :ok
    assert {name, NetRunner.Process.read(p)} == {name, {:ok, "#{number}\n"}}
    NetRunner.Process.stop(p)
  end

  test "what ends a command is named" do
    {:ok, p} = NetRunner.Process.start("sleep", ["100"])
    :ok = NetRunner.Process.kill(p, :"sigrtmin+6")
    assert NetRunner.Process.await_exit(p) == {:ok, 128 + 40}
    assert %{exit: {:signaled, :"sigrtmin+6", false}} = NetRunner.Process.stats(p)
    NetRunner.Process.stop(p)
  end

  # As bash lists them: `1) SIGHUP`.
  defp shell_signals do
    {text, 0} = NetRunner.run(["bash", "-c", "kill -l"])

    for [_, number, name] <- Regex.scan(~r/(\d+)\) (SIG\S+)/, text), into: %{} do
      {String.to_integer(number), name |> String.downcase() |> String.to_atom()}
    end
  end
end
