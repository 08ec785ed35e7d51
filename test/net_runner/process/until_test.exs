defmodule NetRunner.Process.UntilTest do
  # Reading until something has come; and who gets the bytes that were looked at.
  use ExUnit.Case, async: true

  import NetRunner.Started

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Client, Pattern}
  alias NetRunner.Run.Reader
  alias NetRunner.System.Native
  alias NetRunner.Waiting

  describe "a pattern" do
    test "is found at the earliest place, and there the longest" do
      find = fn pattern, text -> Pattern.find(Pattern.new!(pattern), text, 0) end
      assert find.("b", "abab") == {1, 1}
      assert find.(["ba", "b", "bab"], "abab") == {1, 3}
      assert find.(["abc", "b"], "xabcx") == {1, 3}
      assert find.(["x"], "abc") == nil
      assert find.(~r/b+/, "abbb") == {1, 3}
      assert find.(~r/(x)?b/, "ab") == {1, 1}
      assert find.(~r/x/, "ab") == nil
      assert find.(~r/b\z/, "ab") == {1, 1}
    end

    test "is found where it was cut, wherever" do
      text = "some text and then the PROMPT> "

      for pattern <- ["PROMPT>", ["PROMPT>", "xyz"], ~r/PROMPT>/], cut <- 0..byte_size(text) do
        pattern = Pattern.new!(pattern)
        seen = binary_part(text, 0, cut)

        if Pattern.find(pattern, seen, 0) == nil,
          do: assert(Pattern.find(pattern, text, cut) == {23, 7})
      end
    end

    test "of characters waits for the rest of one, and does not mind what is none" do
      pattern = Pattern.new!(~r/é+/u)
      assert Pattern.find(pattern, "aé" <> binary_part("é", 0, 1), 0) == {1, 2}
      assert Pattern.find(pattern, "aéé", 0) == {1, 4}
      assert Pattern.find(pattern, <<"a", 255>>, 0) == nil
      assert Pattern.find(Pattern.new!("é"), <<255, "é">>, 0) == {1, 2}
    end

    test "is a binary, binaries or a regex" do
      for wrong <- ["", [], [""], ["a", ""], ["a", :b], nil, 1, ~c"abc"] do
        assert_raise ArgumentError, ~r/must be a binary that is not empty/, fn ->
          Pattern.new!(wrong)
        end
      end
    end
  end

  test "gives what is before the match, and the match; the rest is the next reader's" do
    p = start!("printf 'one, two; three'; read go; printf ' and four.'")
    assert Command.read_until(p, ",") == {:ok, {"one", ","}}
    assert Command.read_until(p, [" three", ";"]) == {:ok, {" two", ";"}}
    assert Command.stats(p).bytes_out == 15
    :ok = Command.write(p, "\n")
    assert Command.read_until(p, ~r/four?/) == {:ok, {" three and ", "four"}}
    assert Command.read(p) == {:ok, "."}
    assert Command.read(p) == :eof
    assert %{bytes_out: 25} = Command.stats(p)
  end

  test "that comes in pieces is found" do
    p = start!("while read piece; do printf %s \"$piece\"; done")
    reader = Task.async(fn -> Command.read_until(p, "ready>") end)

    for piece <- ~w(get re ad y> more) do
      :ok = Command.write(p, piece <> "\n")
      # Each is seen by itself.
      Tree.await(fn -> Command.stats(p).bytes_out > 0 or Waiting.count(p, :hold) == 0 end)
    end

    assert Task.await(reader, 60_000) == {:ok, {"get", "ready>"}}
    assert read_exactly(p, 4) == "more"
  end

  defp read_exactly(_p, 0), do: ""

  defp read_exactly(p, size) do
    {:ok, bytes} = Command.read(p, size, 60_000)
    bytes <> read_exactly(p, size - byte_size(bytes))
  end

  describe "without a match all bytes stay readable:" do
    test "at the end" do
      p = start!("printf abc")
      assert Command.read_until(p, "x") == :eof
      assert Command.read_until(p, "x") == :eof
      assert Command.read(p, 2) == {:ok, "ab"}
      assert Command.read_until(p, "c") == {:ok, {"", "c"}}
      assert Command.read_until(p, "c") == :eof
      assert Command.read(p) == :eof
    end

    test "when the time is over" do
      p = start!("printf abc; exec sleep 1000")
      assert Command.read_until(p, "x", timeout: 0) == {:error, :timeout}
      assert Command.read_until(p, "x", timeout: 20) == {:error, :timeout}
      assert Command.read(p) == {:ok, "abc"}
      assert Waiting.count(p, :hold) == 0
    end

    test "when it is not in so many bytes" do
      p = start!("printf abcdefgh; exec sleep 1000")
      assert Command.read_until(p, "e", max_bytes: 4) == {:error, :too_long}
      assert Command.stats(p).bytes_out == 4
      # More than this was looked at before.
      assert Command.read_until(p, "c", max_bytes: 2) == {:error, :too_long}
      assert Command.read_until(p, "d", max_bytes: 4) == {:ok, {"abc", "d"}}
      assert Command.read_until(p, ["gh"], max_bytes: 4) == {:ok, {"ef", "gh"}}
    end

    test "when what it matches with raises" do
      p = start!("printf abc; exec sleep 1000")
      # No regex: such a thing is made when a compiled one comes from another release.
      broken = %{~r/x/ | re_pattern: {:re_pattern, 0, 0, 0, "broken"}, source: "("}

      raised =
        try do
          Command.read_until(p, broken)
        rescue
          # Elixir 1.20 compiles it anew.
          error in [ArgumentError, Regex.CompileError] -> error
        end

      assert is_exception(raised)
      assert Command.read(p) == {:ok, "abc"}
    end

    test "when its caller dies, while it waits and while it matches" do
      p = start!("read go; printf abc; exec sleep 1000")
      test = self()
      waiting = spawn(fn -> send(test, Command.read_until(p, "x")) end)
      Waiting.await(p, :hold)

      matching =
        spawn(fn ->
          send(test, {:holds, Client.call(p, {:hold, 100, :infinity})})
          Process.sleep(:infinity)
        end)

      Waiting.await(p, :hold, 2)
      reader = Task.async(fn -> Command.read(p) end)
      Waiting.await(p, :stdout)
      Process.exit(waiting, :kill)
      :ok = Command.write(p, "\n")
      assert_receive {:holds, {:ok, _holder, "abc"}}, 60_000
      assert Waiting.count(p, :stdout) == 1
      Process.exit(matching, :kill)
      assert Task.await(reader, 60_000) == {:ok, "abc"}
    end
  end

  test "a place that was lost while its holder matched is lost" do
    p = start!("printf abc; exec sleep 1000")
    # Until the bytes are there, however slow the command is; the next holder gets them at once.
    {:ok, holder, "abc"} = Client.call(p, {:hold, 100, :infinity})
    :ok = Client.call(p, {:take_seen, holder, 0})
    {:ok, holder, "abc"} = Client.call(p, {:hold, 100, 1})
    Tree.await(fn -> Waiting.count(p, :hold) == 0 end)
    assert Client.call(p, {:take_seen, holder, 2}) == {:error, :timeout}
    assert Client.call(p, {:look_on, holder, 3}) == {:error, :timeout}
    assert Command.read(p) == {:ok, "abc"}
  end

  test "holds its place: who is called later waits, of each kind, and then gets the rest" do
    p = start!("while read piece; do printf %s \"$piece\"; done")
    :ok = Command.write(p, "ab\n")
    until = Task.async(fn -> Command.read_until(p, "d") end)
    Tree.await(fn -> Command.stats(p).bytes_out == 2 end)
    reader = Task.async(fn -> Command.read(p, 1) end)
    Waiting.await(p, :stdout)
    assert Command.read(p, 1, 0) == {:error, :timeout}
    assert Command.read(p, 1, 20) == {:error, :timeout}
    assert Command.read_any(p, 1, 20) == {:error, :timeout}
    assert Command.read_until(p, "b", timeout: 20) == {:error, :timeout}
    any = Task.async(fn -> Command.read_any(p, 1) end)
    Waiting.await(p, :any)
    :ok = Command.ask(p, 1)
    {:ok, guest} = Command.invite(p)
    assert Native.try_read(guest.stdout, 1) == {:error, :eagain}
    :ok = Command.write(p, "cdefgh\n")
    assert Task.await(until, 60_000) == {:ok, {"abc", "d"}}
    assert Task.await(reader, 60_000) == {:ok, "e"}
    assert Task.await(any, 60_000) == {:ok, {:stdout, "f"}}
    assert_receive {:net_runner, ^p, {:stdout, "gh"}}, 60_000
  end

  test "two at once each get what is theirs" do
    p = start!("read go; printf 'a1b2'; read go")
    first = Task.async(fn -> Command.read_until(p, "1") end)
    Waiting.await(p, :hold)
    second = Task.async(fn -> Command.read_until(p, "2") end)
    Waiting.await(p, :hold, 2)
    :ok = Command.write(p, "\n")
    assert Task.await(first, 60_000) == {:ok, {"a", "1"}}
    assert Task.await(second, 60_000) == {:ok, {"b", "2"}}
  end

  describe "bytes that were looked at are taken first" do
    setup do
      p = start!("printf abc; read go; printf def")
      assert Command.read_until(p, "x", max_bytes: 3) == {:error, :too_long}
      :ok = Command.write(p, "\n")
      {:ok, 0} = Command.await_exit(p)
      {:ok, p: p}
    end

    test "by a read", %{p: p} do
      assert Command.read(p, 2) == {:ok, "ab"}
      assert Command.read(p, 2) == {:ok, "c"}
      assert Command.read(p, 9) == {:ok, "def"}
      assert Command.read(p, 9) == :eof
    end

    test "by read_any", %{p: p} do
      assert Command.read_any(p, 9) == {:ok, {:stdout, "abc"}}
      assert Command.read_any(p, 9) == {:ok, {:stdout, "def"}}
    end

    test "by whoever asks", %{p: p} do
      :ok = Command.ask(p, 2)

      for message <- [{:stdout, "abc"}, {:stdout, "def"}, {:eof, :stdout}],
          do: assert_receive({:net_runner, ^p, ^message}, 60_000)
    end

    test "by whoever collects", %{p: p} do
      assert {"abcdef", _} = Command.collect(p, :infinity)
    end

    test "by a stream, and whoever reads by itself", %{p: p} do
      reader = Reader.new(p)
      assert Reader.read(reader, 2) == {:ok, "ab"}
      assert Reader.read(reader, 9) == {:ok, "c"}
      assert Reader.read(reader, 9) == {:ok, "def"}
    end
  end

  test "a stream that reads by itself does so no more when somebody looks" do
    p = start!("printf abc; while read piece; do printf %s \"$piece\"; done")
    reader = Reader.new(p)
    assert Reader.read(reader, 1) == {:ok, "a"}
    assert Command.read_until(p, "x", max_bytes: 1) == {:error, :too_long}
    assert Reader.read(reader, 1) == {:ok, "b"}
    assert Reader.read(reader, 9) == {:ok, "c"}
    :ok = Command.write(p, "de\n")
    assert Reader.read(reader, 9) == {:ok, "de"}
  end

  test "a stream that reads by itself gets its bytes in order, whenever somebody looks" do
    # Numbers in order: whoever gets bytes behind those that are kept would see a later one first.
    numbers = for n <- 1..40_000, into: "", do: <<n::32>>

    for _ <- 1..20 do
      {:ok, p} = Command.start("cat")
      reader = Reader.new(p)
      writer = Task.async(fn -> Command.write(p, numbers) && Command.close_stdin(p) end)
      streaming = Task.async(fn -> read_to_end(reader, []) end)
      # It looks, and takes nothing.
      looked = Command.read_until(p, "no such text", max_bytes: :rand.uniform(5_000))
      assert looked in [{:error, :too_long}, :eof]
      assert Task.await(streaming, 60_000) == numbers
      Task.await(writer, 60_000)
      Command.stop(p)
    end
  end

  defp read_to_end(reader, chunks) do
    case Reader.read(reader, 997) do
      {:ok, bytes} -> read_to_end(reader, [chunks | bytes])
      :eof -> IO.iodata_to_binary(chunks)
    end
  end

  test "what was looked at is discarded with the rest when the command is stopped" do
    p = start!("printf abc; exec sleep 1000")
    assert Command.read_until(p, "x", timeout: 20) == {:error, :timeout}
    until = Task.async(fn -> Command.read_until(p, "x") end)
    Waiting.await(p, :hold)
    :ok = Command.end_command(p, :stopped)
    assert Task.await(until, 60_000) == {:error, :closed}
    assert Command.read(p) == {:error, :closed}
  end

  test "wrong options are named, and nil is none" do
    p = start!("printf abc", stdout: :null)
    assert Command.read_until(p, "a", timeout: nil) == {:error, :not_piped}
    assert Command.read_until(p, "a", max_bytes: 1, max_bytes: 0) == {:error, :not_piped}

    for {options, message} <- [
          {[tmeout: 1], ~r/unknown option :tmeout; this function takes :max_bytes and :timeout/},
          {[timeout: -1], ~r/:timeout must be milliseconds .*got: -1/},
          {[max_bytes: 0], ~r/:max_bytes must be an integer .*got: 0/}
        ] do
      assert_raise ArgumentError, message, fn -> Command.read_until(p, "a", options) end
    end
  end
end
