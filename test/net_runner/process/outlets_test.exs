defmodule NetRunner.Process.OutletsTest do
  # What is read of a command's output after its exit, without a command: how much is in the pipe then is up to the test.
  use ExUnit.Case, async: true

  alias NetRunner.Process.{Counters, Operations, Outlets, Pipe}
  alias NetRunner.System.Native

  # A pipe with so many bytes; its other end stays open, as with something that a command has left behind. No read
  # here finds it empty, which would wait.
  defp outlets(size) do
    {:ok, read, write} = Native.pipe()
    :ok = Native.write(write, [:binary.copy("x", size)])
    counters = Counters.new(nil, read, nil)
    on_exit(fn -> Native.close(write) end)
    {Outlets.new(Pipe.new(read), nil, nil, counters), counters, write}
  end

  defp from, do: {self(), make_ref()}

  for writers <- [:gone, :lingering] do
    test "what is written into the pipe when nobody who writes is waited for is not read (#{writers})" do
      {outlets, _counters, write} = outlets(5_001)
      {fd, outlets} = Outlets.invite_guests(outlets)
      :ok = Native.let_guests_in(fd, 0)
      assert Native.try_read(fd, 1) == {:ok, "x"}
      {outlets, []} = Outlets.writers(outlets, unquote(writers))
      # A guest would not stop after so many bytes.
      assert Native.try_read(fd, 1) == {:error, :eagain}

      assert {:reply, {:ok, some}, outlets} =
               Outlets.read(outlets, from(), :stdout, 400, :infinity)

      assert byte_size(some) == 400
      :ok = Native.write(write, ["late"])

      assert {:reply, {:ok, rest}, outlets} =
               Outlets.read(outlets, from(), :stdout, 5_000, :infinity)

      assert byte_size(rest) == 4_600
      assert {:reply, :eof, outlets} = Outlets.read(outlets, from(), :stdout, 5_000, :infinity)
      assert outlets.stdout.pipe.fd == nil
    end
  end

  # How much is in a terminal cannot be asked.
  test "of a terminal, no more is read than it can hold, however fast somebody writes into it" do
    {:ok, read, write} = Native.pipe()
    on_exit(fn -> Native.close(write) end)
    outlets = Outlets.new(Pipe.new(read, true), nil, nil, Counters.new(nil, read, nil))
    :ok = Native.write(write, ["x"])
    {outlets, []} = Outlets.writers(outlets, :gone)

    outlets =
      Enum.reduce(1..64, outlets, fn _, outlets ->
        :ok = Native.write(write, [:binary.copy("x", 1_024)])

        {:reply, {:ok, <<_::binary-size(1_024)>>}, outlets} =
          Outlets.read(outlets, from(), :stdout, 1_024, :infinity)

        outlets
      end)

    assert {:reply, :eof, outlets} = Outlets.read(outlets, from(), :stdout, 1_024, :infinity)
    assert outlets.stdout.pipe.fd == nil
  end

  test "an error shows what a consumed stderr has, though nobody has told yet that there is something" do
    {:ok, read, write} = Native.pipe()
    on_exit(fn -> Native.close(write) end)
    outlets = Outlets.new(nil, Pipe.new(read), 8, Counters.new(nil, nil, read))
    :ok = Native.write(write, ["oops"])
    assert {"oops", outlets, [{:again, :stderr}]} = Outlets.take_tail(outlets)
    :ok = Native.write(write, [" and more"])
    assert {"and more", _outlets, [{:again, :stderr}]} = Outlets.take_tail(outlets)
  end

  test "nobody takes anything past a process that asks, though there is always something" do
    {outlets, _counters, write} = outlets(10)
    {fd, outlets} = Outlets.invite_guests(outlets)
    :ok = Native.let_guests_in(fd, 0)
    assert {:ok, outlets, effects} = Outlets.ask(outlets, self(), 5)
    assert {:send, self(), {:stdout, "xxxxxxxxxx"}} in effects
    assert {:again, :stdout} in effects
    :ok = Native.write(write, ["next"])
    assert Native.try_read(fd, 1) == {:error, :eagain}
    {_outlets, effects} = Outlets.serve(outlets, :stdout)
    assert {:send, self(), {:stdout, "next"}} in effects
  end

  test "a collect whose pipe cannot be read when the command has exited is answered" do
    {:ok, _read, write} = Native.pipe()
    outlets = Outlets.new(Pipe.new(write), nil, nil, Counters.new(nil, write, nil))
    from = from()
    {outlets, effects} = Outlets.collect(outlets, from, :infinity)
    assert effects == [{:condemn, {:read_failed, :ebadf}}]
    {_, effects} = Outlets.writers(outlets, :left_behind)
    assert [{:collected, %{from: ^from}, {:error, :ebadf}}] = effects
  end

  test "when it is ended, nobody reads by himself what is discarded, and readers hear why" do
    {outlets, counters, _write} = outlets(5_000)
    {fd, outlets} = Outlets.invite_guests(outlets)
    refute Counters.discarding?(counters)
    {outlets, _} = Outlets.discard_all(outlets, {:error, :timeout})
    assert Counters.discarding?(counters)
    assert Native.try_read(fd, 1) == {:error, :eagain}

    assert {:reply, {:error, :timeout}, _} =
             Outlets.read(outlets, from(), :stdout, 400, :infinity)

    assert Counters.bytes(counters).out == 5_000
  end

  test "when it is ended, what was collected of it is neither kept nor put together: it may be gigabytes" do
    {outlets, counters, write} = outlets(5_000)
    from = from()
    {outlets, [{:again, :stdout}]} = Outlets.collect(outlets, from, :infinity)
    :ok = Native.write(write, ["more"])
    {outlets, _} = Outlets.discard_all(outlets, {:error, :timeout})
    assert Counters.bytes(counters).out == 5_004
    assert %{data: {:error, :timeout}} = Operations.next(outlets.queue, [:collect])
    {_, effects} = Outlets.writers(outlets, :gone)
    assert [{:collected, %{from: ^from}, {:error, :timeout}}] = effects
  end

  test "when it is given up, its pipes are closed" do
    {outlets, counters, _write} = outlets(5_000)
    outlets = Outlets.close(outlets)
    assert Counters.discarding?(counters)
    assert outlets.stdout.pipe.fd == nil
    assert {:reply, :eof, _} = Outlets.read(outlets, from(), :stdout, 400, :infinity)
  end
end
