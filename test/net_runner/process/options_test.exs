defmodule NetRunner.Process.OptionsTest do
  # What `NetRunner.run/2` does not show of the options; its own tests have the rest.
  use ExUnit.Case, async: true

  alias NetRunner.Process

  setup do
    directory = NetRunner.Temporary.path("options")

    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    {:ok, directory: directory}
  end

  describe "a stream that is no pipe" do
    test "is neither read nor written, and can be closed", %{directory: directory} do
      file = Path.join(directory, "out")

      {:ok, p} =
        Process.start("sh", ["-c", "echo o; echo e >&2"], stdin: :null, stdout: {:file, file})

      assert Process.write(p, "x") == {:error, :not_piped}
      assert Process.close_stdin(p) == :ok
      assert Process.read(p) == {:error, :not_piped}
      assert Process.read_stderr(p) == {:error, :not_piped}
      assert Process.await_exit(p) == {:ok, 0}
      assert File.read!(file) == "o\n"
    end

    test "is left out by read_any" do
      {:ok, p} = Process.start("sh", ["-c", "echo o; echo e >&2"], stdout: :null, stderr: :pipe)
      assert Process.read_any(p) == {:ok, {:stderr, "e\n"}}
      assert Process.read_any(p) == :eof
    end

    test "gives no output, and a limit of output does not count what is written elsewhere" do
      options = [stdout: {:file, "/dev/null"}, max_output_size: 1]
      assert NetRunner.run(~w(seq 1000), options) == {"", 0}
      assert NetRunner.run(~w(sleep 100), stdout: :null, timeout: 50) == {:error, :timeout}
    end
  end

  describe "files" do
    test "are made with the umask of the command", %{directory: directory} do
      file = Path.join(directory, "out")
      {"", 0} = NetRunner.run(~w(true), stdout: {:file, file}, umask: 0o027)
      assert Bitwise.band(File.stat!(file).mode, 0o777) == 0o640
    end

    test "of appending commands keep whole lines", %{directory: directory} do
      file = Path.join(directory, "out")
      script = "i=0; while [ $i -lt 200 ]; do echo $0 $i; echo $0 $i >&2; i=$((i+1)); done"

      1..4
      |> Task.async_stream(fn n ->
        command = ["sh", "-c", script, "#{n}"]
        {"", 0} = NetRunner.run(command, stdout: {:append, file}, stderr: {:append, file})
      end)
      |> Stream.run()

      expected = for n <- 1..4, i <- 0..199, _ <- 1..2, do: "#{n} #{i}"

      assert file |> File.read!() |> String.split("\n", trim: true) |> Enum.sort() ==
               Enum.sort(expected)
    end

    test "block the command as any file does", %{directory: directory} do
      fifo = Path.join(directory, "fifo")
      {"", 0} = NetRunner.run(["mkfifo", fifo])
      # Opened without waiting, but with O_NONBLOCK cleared: neither side may see EAGAIN.
      {:ok, reader} =
        Process.start("sh", ["-c", "exec 3<>$0; echo there; head -c 300000 <&3 | wc -c", fifo])

      {:ok, "there\n"} = Process.read(reader)
      assert NetRunner.run(~w(head -c 300000 /dev/zero), stdout: {:file, fifo}) == {"", 0}
      assert Process.read(reader) == {:ok, "300000\n"}
      assert NetRunner.run(~w(cat), stdin: {:file, fifo}) == {"", 0}
    end

    test "the command has no descriptor but its three", %{directory: directory} do
      file = Path.join(directory, "out")

      options = [
        stdin: {:file, "/dev/null"},
        stdout: {:file, file},
        stderr: {:append, file <> "2"}
      ]

      {"", 0} =
        NetRunner.run(["sh", "-c", "for f in /proc/self/fd/*; do echo ${f##*/}; done"], options)

      # The shell that lists the directory has that open.
      assert File.read!(file) in ["0\n1\n2\n", "0\n1\n2\n3\n"]
    end
  end

  describe "limits" do
    test "are soft and hard, one number for both, or none" do
      show = ["sh", "-c", "ulimit -Ss; ulimit -Hs"]
      assert NetRunner.run(show, rlimits: [stack: {1_048_576, 2_097_152}]) == {"1024\n2048\n", 0}
      assert NetRunner.run(show, rlimits: [stack: 1_048_576]) == {"1024\n1024\n", 0}
      {hard, 0} = NetRunner.run(["sh", "-c", "ulimit -Ht"])

      if hard == "unlimited\n",
        do:
          assert(
            {^hard, 0} = NetRunner.run(["sh", "-c", "ulimit -St"], rlimits: [cpu: :infinity])
          )
    end

    test "of every name are known to the system" do
      for name <-
            ~w(as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack)a do
        {text, 0} =
          NetRunner.run(["prlimit", "--noheadings", "--raw", "--output", "HARD", "--#{name}"])

        limit =
          if text =~ "unlimited",
            do: :infinity,
            else: text |> String.trim() |> String.to_integer()

        assert {"", 0} = NetRunner.run(~w(true), rlimits: [{name, limit}])
      end
    end

    test "end a command that passes them", %{directory: directory} do
      file = Path.join(directory, "out")
      command = ["head", "-c", "100000", "/dev/zero"]
      # SIGXFSZ
      assert NetRunner.run(command, stdout: {:file, file}, rlimits: [fsize: 1_000]) ==
               {"", 128 + 25}

      assert File.stat!(file).size == 1_000
    end
  end

  test "a name is free again when the process has stopped on this node" do
    start_supervised!({Registry, keys: :unique, name: __MODULE__.Names})
    via = {:via, Registry, {__MODULE__.Names, :cat}}

    for name <- [__MODULE__.Stopped, {:global, {__MODULE__, :cat}}, via], _ <- 1..20 do
      {:ok, p} = Process.start("cat", [], name: name)
      assert Process.stop(name) == :ok
      refute Elixir.Process.alive?(p)
    end
  end

  test "a name that is taken starts no command", %{directory: directory} do
    {:ok, p} = Process.start("cat", [], name: __MODULE__.Cat)
    file = Path.join(directory, "started")
    assert Process.start("touch", [file], name: __MODULE__.Cat) == {:error, {:already_started, p}}
    assert {"", 0} = NetRunner.run(~w(true))
    refute File.exists?(file)
    Process.stop(p)
  end

  test "what the documentation calls the default can be given" do
    groups = [:command, :input, :run, :raising, :stream, :process, :daemon]
    defaults = NetRunner.Options.validate!([], groups)
    assert NetRunner.Options.validate!(Enum.to_list(defaults), groups) == defaults
  end
end
