defmodule NetRunner.ShapesTest do
  # Commands with hard shapes: much data, no reader, closed pipes, the limits of the system.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Memory
  alias NetRunner.Process, as: Command

  @mib 1_048_576
  @gib 1_073_741_824

  # A block that a compressor makes an eighth of, different each time: its parts change places.
  defp blocks(total) do
    block = for _ <- 1..256, into: <<>>, do: :binary.copy(:rand.bytes(512), 8)

    Stream.map(0..(div(total, @mib) - 1), fn index ->
      <<head::binary-size(4096), tail::binary>> = block
      cut = rem(index * 7919, byte_size(tail))
      {first, second} = :erlang.split_binary(tail, cut)
      [<<index::64>>, second, binary_part(head, 8, 4088), first]
    end)
  end

  # Sends the hash of what went through to a process.
  defp hashing(enumerable, to) do
    Stream.transform(
      enumerable,
      fn -> :crypto.hash_init(:sha256) end,
      fn chunk, context -> {[chunk], :crypto.hash_update(context, chunk)} end,
      fn context -> {[], send(to, {:sent, :crypto.hash_final(context)})} end,
      fn _ -> :ok end
    )
  end

  test "1 GiB through gzip and gunzip, joined by a stream, is the same at both ends" do
    input = hashing(blocks(@gib), self())
    compressed = NetRunner.stream!(~w(gzip -1), input: input)
    output = NetRunner.stream!(~w(gunzip), input: compressed)

    {size, context} =
      Enum.reduce(output, {0, :crypto.hash_init(:sha256)}, fn chunk, {size, context} ->
        {size + byte_size(chunk), :crypto.hash_update(context, chunk)}
      end)

    assert size == @gib
    assert_receive {:sent, sent}
    assert :crypto.hash_final(context) == sent
  end

  test "1 GiB written to cat while it is read back: no deadlock, every byte in order" do
    {:ok, p} = Command.start("cat")

    input = hashing(blocks(@gib), self())

    writer =
      Task.async(fn ->
        Enum.each(input, &(:ok = Command.write(p, &1)))
        Command.close_stdin(p)
      end)

    assert {@gib, received} = read_and_hash(p, 0, :crypto.hash_init(:sha256))
    assert Task.await(writer) == :ok
    assert_receive {:sent, ^received}
    assert Command.await_exit(p) == {:ok, 0}
    assert %{bytes_in: @gib, bytes_out: @gib} = Command.stats(p)
    Command.stop(p)
  end

  defp read_and_hash(p, size, context) do
    case Command.read(p, @mib) do
      {:ok, bytes} ->
        read_and_hash(p, size + byte_size(bytes), :crypto.hash_update(context, bytes))

      :eof ->
        {size, :crypto.hash_final(context)}
    end
  end

  for {stream, redirection} <- [stdout: "", stderr: " >&2"] do
    test "yes, its #{stream} left unread, is blocked in its write, and the VM's memory does not grow" do
      {:ok, p} = Command.start("sh", ["-c", "exec yes#{unquote(redirection)}"], stderr: :pipe)
      {:ok, {unquote(stream), _}} = Command.read_any(p)
      os_pid = Command.os_pid(p)
      Tree.await(fn -> blocked_in_write?(os_pid) end)
      before = memory(p)
      # A program that writes on would fill gigabytes in this time.
      Process.sleep(1_000)
      assert memory(p) - before < @mib
      assert blocked_in_write?(os_pid)
      assert Command.kill(p, :sigterm) == :ok
      assert Command.await_exit(p) == {:ok, 143}
      refute File.exists?("/proc/#{os_pid}")
      Command.stop(p)
    end
  end

  test "yes into a consumed stderr goes on, and the VM keeps its end only" do
    {:ok, p} = Command.start("sh", ["-c", "exec yes >&2"])
    await_drained(p, 16 * @mib)
    before = memory(p)
    await_drained(p, Command.stats(p).bytes_err + 256 * @mib)
    assert memory(p) - before < 2 * @mib
    Command.stop(p)
  end

  defp await_drained(p, bytes), do: Tree.await(fn -> Command.stats(p).bytes_err >= bytes end)

  defp memory(p) do
    Memory.of_binaries() + elem(Process.info(p, :memory), 1)
  end

  # proc(5): the number of the system call comes first; 1 is write(2) on x86-64, 64 on arm64.
  defp blocked_in_write?(os_pid) do
    with {:ok, syscall} <- File.read("/proc/#{os_pid}/syscall") do
      hd(String.split(syscall)) in ["1", "64"]
    else
      # Without the right to look: asleep is what remains to be seen.
      {:error, _} -> File.read!("/proc/#{os_pid}/stat") =~ ") S "
    end
  end

  describe "64 MiB on stderr, and then one line on stdout," do
    @script "head -c 67108864 /dev/zero >&2; echo done"
    @stderr 67_108_864

    test "with stderr consumed: does not block" do
      assert NetRunner.run(["sh", "-c", @script]) == {"done\n", 0}
    end

    test "with stderr read on demand: waits for its reader" do
      {:ok, p} = Command.start("sh", ["-c", @script], stderr: :pipe)
      reader = Task.async(fn -> Command.read(p) end)
      assert read_stderr(p, 0) == @stderr
      assert Task.await(reader) == {:ok, "done\n"}
      assert Command.await_exit(p) == {:ok, 0}
      Command.stop(p)
    end

    test "with stderr in stdout: comes before it" do
      assert {output, 0} = NetRunner.run(["sh", "-c", @script], stderr: :redirect)
      assert byte_size(output) == @stderr + 5
      assert binary_part(output, @stderr, 5) == "done\n"
    end

    test "with stderr dropped: does not block" do
      assert NetRunner.run(["sh", "-c", @script], stderr: :disabled) == {"done\n", 0}
    end

    test "with stderr in a file: the file has it" do
      path = NetRunner.Temporary.path("stderr")

      on_exit(fn -> File.rm(path) end)
      assert NetRunner.run(["sh", "-c", @script], stderr: {:file, path}) == {"done\n", 0}
      assert File.stat!(path).size == @stderr
    end
  end

  defp read_stderr(p, size) do
    case Command.read_stderr(p, @mib) do
      {:ok, bytes} -> read_stderr(p, size + byte_size(bytes))
      :eof -> size
    end
  end

  describe "output of a program that exits at once after it," do
    for size <- [0, 1, 4095, 4096, 65_535, 65_536, 65_537, @mib - 1, @mib, @mib + 1] do
      test "#{size} bytes, arrives whole" do
        size = unquote(size)
        command = ["python3", "-S", "-E", "-c", writer(size)]
        expected = pattern(size)

        assert NetRunner.run(command) == {expected, 0}
        assert command |> NetRunner.stream!() |> Enum.join() == expected

        {:ok, p} = Command.start(hd(command), tl(command))
        # A small one has exited before the first read.
        if size <= 65_536, do: assert(Command.await_exit(p) == {:ok, 0})
        assert read_all(p, []) == expected
        assert Command.await_exit(p) == {:ok, 0}
        Command.stop(p)
      end
    end
  end

  # Writes until all is written, and leaves without another instruction.
  defp writer(size) do
    """
    import os
    data = bytes(i % 251 for i in range(#{size}))
    while data:
        data = data[os.write(1, data):]
    os._exit(0)
    """
  end

  defp pattern(size) do
    for i <- 0..size, i < size, into: <<>>, do: <<rem(i, 251)>>
  end

  defp read_all(p, chunks) do
    case Command.read(p) do
      {:ok, bytes} -> read_all(p, [chunks | bytes])
      :eof -> IO.iodata_to_binary(chunks)
    end
  end

  test "bytes of all values, NUL among them, pass unchanged" do
    all = for byte <- 0..255, into: <<>>, do: <<byte>>
    data = String.duplicate(all, 1_000)
    assert NetRunner.run(~w(cat), input: data) == {data, 0}
    assert ~w(cat) |> NetRunner.stream!(input: [data]) |> Enum.join() == data
  end

  test "a UTF-8 character that a chunk border cuts is put together again by joining" do
    {:ok, p} = Command.start("printf", ["a\\303\\244b"])
    assert Command.read(p, 2) == {:ok, <<?a, 0xC3>>}
    assert Command.read(p, 2) == {:ok, <<0xA4, ?b>>}
    assert Command.read(p, 2) == :eof
    Command.stop(p)

    text = String.duplicate("ä", 200_001)
    chunks = ~w(cat) |> NetRunner.stream!(input: ["x", text]) |> Enum.to_list()
    assert length(chunks) > 1
    assert Enum.join(chunks) == "x" <> text
  end

  test "stdin closed by the program while 100 MiB are written: :epipe, and the status arrives" do
    {:ok, p} = Command.start("sh", ["-c", "head -c 10 >/dev/null; exec <&-; read go; exit 7"])
    assert Command.write(p, :binary.copy(<<0>>, 100 * @mib)) == {:error, :epipe}
    assert Command.write(p, "more") == {:error, :epipe}
    assert Command.await_exit(p) == {:ok, 7}
    Command.stop(p)
  end

  test "taking three chunks of an endless program ends it" do
    test = self()

    command = ["sh", "-c", "echo $$; exec yes"]
    chunks = command |> NetRunner.stream!() |> Stream.each(&send(test, &1)) |> Enum.take(3)
    assert length(chunks) == 3
    [os_pid | _] = chunks |> Enum.join() |> String.split("\n")
    refute File.exists?("/proc/#{os_pid}")
  end

  describe "arguments and environment" do
    setup do
      {arg_max, 0} = NetRunner.run(~w(getconf ARG_MAX))
      %{arg_max: arg_max |> String.trim() |> String.to_integer()}
    end

    # What execve(2) counts: each string with its NUL, the path beside them, and a pointer for each.
    @path "/bin/true"
    @largest 100_000

    # Arguments that make the count come out at `total`, beside an environment.
    defp arguments(total, env \\ []) do
      strings = [@path | Enum.map(env, fn {name, value} -> name <> "=" <> value end)]
      left = total - (byte_size(@path) + 1) - Enum.sum(Enum.map(strings, &count/1))
      pieces = div(left, @largest + 9) - 1
      last = left - pieces * (@largest + 9)
      first = div(last, 2)
      sizes = [first, last - first | List.duplicate(@largest + 9, pieces)]
      Enum.map(sizes, &String.duplicate("x", &1 - 9))
    end

    defp count(string), do: byte_size(string) + 9

    # Older kernels count in pages.
    @page 4_096

    test "just under the system's limit start the program, just over it do not", %{arg_max: max} do
      env = for n <- 1..10, do: {"VARIABLE_#{n}", String.duplicate("y", @largest)}

      for env <- [[], env] do
        run = &NetRunner.run([@path | arguments(&1, env)], clear_env: true, env: env)
        assert run.(max - @page) == {"", 0}
        assert run.(max + @page) == {:error, :e2big}
      end

      args = arguments(max - @page)
      error = assert_raise NetRunner.Error, fn -> too_long(args) end
      assert Exception.message(error) =~ "ARG_MAX"
      assert {:error, :e2big} = Command.start(@path, args ++ args)
    end

    defp too_long(args), do: [@path | args ++ args] |> NetRunner.stream!() |> Enum.to_list()

    test "arrive whole", %{arg_max: max} do
      args = arguments(div(max, 2))
      env = for n <- 1..5, do: {"VARIABLE_#{n}", String.duplicate("y", @largest)}

      script =
        "import hashlib, os, sys; h = hashlib.sha256(); " <>
          "[h.update(os.fsencode(a)) for a in sys.argv[1:]]; " <>
          "[h.update(os.environb[b'VARIABLE_%d' % n]) for n in range(1, 6)]; print(h.hexdigest())"

      hash = :crypto.hash(:sha256, [args, Enum.map(env, &elem(&1, 1))])
      expected = Base.encode16(hash, case: :lower) <> "\n"

      assert NetRunner.run(["python3", "-S", "-E", "-c", script | args], env: env) ==
               {expected, 0}
    end

    test "a single string may have 32 pages with its NUL (MAX_ARG_STRLEN)" do
      assert NetRunner.run(["true", String.duplicate("x", 131_071)]) == {"", 0}
      assert NetRunner.run(["true", String.duplicate("x", 131_072)]) == {:error, :e2big}
      value = String.duplicate("x", 131_069)
      assert NetRunner.run(["true"], env: [{"V", value}]) == {"", 0}
      assert NetRunner.run(["true"], env: [{"V", value <> "x"}]) == {:error, :e2big}
    end
  end
end
