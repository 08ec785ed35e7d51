defmodule NetRunner.Run.ReaderTest do
  use ExUnit.Case, async: true

  alias NetRunner.Process.Counters
  alias NetRunner.Run.Reader
  alias NetRunner.System.Native

  test "reads by itself only while it may; else the server is asked, and no byte is taken" do
    {:ok, fd, write} = Native.pipe()
    :ok = Native.write(write, ["abcdef"])
    counters = Counters.new()
    # A server that is gone, which shows that it was asked.
    {server, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, _, _}
    reader = %Reader{server: server, direct: {fd, counters}}

    assert Reader.read(reader, 2) == {:ok, "ab"}
    assert Counters.bytes(counters).out == 2

    for access <- [:server, :nobody] do
      Counters.put_access(counters, access)
      assert Reader.read(reader, 2) == {:error, :closed}
    end

    assert Native.read(fd, 100) == {:ok, "cdef"}
    assert Counters.bytes(counters).out == 2
    Native.close(write)
    Native.close(fd)
  end
end
