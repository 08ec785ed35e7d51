defmodule NetRunner.Guarantees.Nodes do
  @moduledoc false
  # Erlang nodes for tests: other VMs with this build's code, controlled over their standard
  # input and output (`:peer`), so that the distribution between them can be broken, and they can be killed. Their
  # name server (epmd) is one of their own, on a port of its own.

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Registry

  # It ends with its stdin, which is the port's. No command of NetRunner, because tests count those.
  @epmd "$0 -address 127.0.0.1 -port $1 >/dev/null 2>&1 & read end; kill $!; wait"

  @doc "Starts a name server; it ends with the calling process. Gives its TCP port."
  def start_epmd(number \\ free_port()) do
    args = ["-c", @epmd, epmd(), "#{number}"]
    port = Port.open({:spawn_executable, "/bin/sh"}, [:exit_status, args: args])
    await_epmd(port, number)
    number
  end

  @doc "A TCP port that nobody listens on."
  def free_port do
    {:ok, listening} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, number} = :inet.port(listening)
    :gen_tcp.close(listening)
    number
  end

  defp epmd do
    System.find_executable("epmd") || Path.join([:code.root_dir(), "bin", "epmd"])
  end

  defp await_epmd(port, number) do
    case :gen_tcp.connect({127, 0, 0, 1}, number, []) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, :econnrefused} ->
        receive do
          {^port, {:exit_status, status}} -> raise "epmd ended with #{status}"
        after
          10 -> await_epmd(port, number)
        end
    end
  end

  @doc """
  Starts a node. `:code`: `false` leaves NetRunner out; `:name`: instead of a new one each time. Gives the pid to `call/4` it
  with, and its name.
  """
  def start(epmd_port, options \\ []) do
    ours = to_charlist(Application.app_dir(:net_runner, "ebin"))

    paths =
      for path <- :code.get_path(), path != ours or Keyword.get(options, :code, true), do: path

    {:ok, peer, node} =
      :peer.start_link(%{
        name: Keyword.get_lazy(options, :name, &:peer.random_name/0),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        # On a machine that has much else to do.
        wait_boot: 60_000,
        args: arguments() ++ [~c"-pa" | paths],
        env: [{~c"ERL_EPMD_PORT", ~c"#{epmd_port}"}, {~c"ERL_EPMD_ADDRESS", ~c"127.0.0.1"}],
        # A test can kill it, and goes on.
        peer_down: :stop
      })

    {:ok, _} = call(peer, :application, :ensure_all_started, [:elixir])
    {peer, node}
  end

  # Connections are broken on purpose; `global` shall not break others because of that. Nobody else
  # shall get in.
  defp arguments do
    ~w(-setcookie #{cookie()} -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}
       -kernel prevent_overlapping_partitions false)c
  end

  # One for all nodes of a run. Modules of tests that run at once would each make one.
  defp cookie, do: :global.trans({__MODULE__, self()}, &known_cookie/0, [node()])

  defp known_cookie do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      cookie = Base.encode16(:rand.bytes(16))
      :persistent_term.put(__MODULE__, cookie)
      cookie
    end
  end

  def start_net_runner(peer) do
    {:ok, _} = call(peer, :application, :ensure_all_started, [:net_runner])
    # Its log is not the tests'.
    :ok = call(peer, :logger, :set_primary_config, [:level, :none])
  end

  def call(peer, module, function, arguments) do
    :peer.call(peer, module, function, arguments, 60_000)
  end

  @doc "A process on that node that lives on, and calls what `call_from/5` says."
  def start_caller(peer) do
    {:ok, caller} = call(peer, Agent, :start, [:erlang, :make_ref, []])
    caller
  end

  @doc "As `call/4`, but by that process."
  def call_from(peer, caller, module, function, arguments) do
    call(peer, __MODULE__, :by, [caller, module, function, arguments])
  end

  def by(caller, module, function, arguments) do
    Agent.get(caller, __MODULE__, :by_itself, [module, function, arguments], 60_000)
  end

  def by_itself(_state, module, function, arguments), do: apply(module, function, arguments)

  @doc "Calls something on that node that takes its time; its result is to be had with `result/2`."
  def call_later(peer, module, function, arguments) do
    caller = start_caller(peer)
    :ok = call(peer, Agent, :cast, [caller, __MODULE__, :keep, [module, function, arguments]])
    caller
  end

  def keep(_state, module, function, arguments), do: {:kept, apply(module, function, arguments)}

  def result(peer, agent) do
    {:kept, result} = call(peer, :sys, :get_state, [agent, 30_000])
    result
  end

  # --- what tests do on a node: closures do not travel -----------------------------------------------

  @doc "Starts commands that print `ready`, and waits for that."
  def start_ready(commands, options) do
    for {[executable | args], env} <- commands do
      {:ok, p} = NetRunner.Process.start(executable, args, [env: env] ++ options)
      {:ok, "ready\n"} = NetRunner.Process.read(p)
      p
    end
  end

  @doc """
  Sends so many bytes through a `cat` on that node. They are made and compared here: what `call/4` takes and gives goes over
  standard input and output as text, which is slow.
  """
  def there_and_back(node, size) do
    bytes = :rand.bytes(size)

    case NetRunner.run(~w(cat), input: bytes, node: node) do
      {^bytes, 0} -> :the_same
      {other, status} when is_binary(other) -> {:differs, byte_size(other), status}
      error -> error
    end
  end

  @doc "What `cat` on that node says to input that tells where it is produced."
  def where_input_is_produced(node) do
    NetRunner.run(~w(cat), node: node, input: Stream.map(1..2, fn n -> "#{n} #{node()} " end))
  end

  @doc "Input of which another node produces a part; the command runs on `node`."
  def input_with_help(node, helper) do
    input = fn sink ->
      Enum.into(["one "], sink)
      :erpc.call(helper, Enum, :into, [["two "], sink])
      Enum.into(["three"], sink)
    end

    NetRunner.run(~w(cat), input: input, node: node)
  end

  def input_that_raises(node) do
    NetRunner.run(~w(cat), node: node, input: Stream.map(1..2, fn _ -> raise "no input" end))
  rescue
    error in RuntimeError -> {:raised, error.message}
  end

  @doc "A capture on that node that is cancelled as soon as something is printed, by a process of a third node or here."
  def capture_cancelled(command, options, canceller) do
    token = NetRunner.cancel_token()

    cancel = fn _ -> :erpc.call(canceller, NetRunner, :cancel, [token]) end
    result = NetRunner.capture(command, [cancel: token, on_output: cancel] ++ options)
    {result, NetRunner.capture(~w(true), cancel: token)}
  end

  @doc "The same, by that node itself, after its registry was restarted."
  def capture_cancelled_after_restart(command, options) do
    token = NetRunner.cancel_token()
    registered? = fn -> Registry.get({:token, token.ref}) != [] end

    cancel = fn _ ->
      Tree.await(registered?)
      registry = Process.whereis(Registry)
      Process.exit(registry, :kill)
      Tree.await(fn -> Process.whereis(Registry) not in [nil, registry] and registered?.() end)
      NetRunner.cancel(token)
    end

    NetRunner.capture(command, [cancel: token, on_output: cancel] ++ options)
  end

  def capture_with_failing_input(options) do
    NetRunner.capture(~w(cat), [input: Stream.map(1..2, fn _ -> raise "no input" end)] ++ options)
  end

  @doc """
  The number of bytes in the first chunks of a stream, and in the rest. Between the two it tells the
  gate, and waits for `:go`.
  """
  def stream_with_pause(command, options, chunks, gate) do
    command
    |> NetRunner.stream!(options)
    |> Stream.with_index(1)
    |> Enum.reduce({0, 0}, fn {bytes, n}, {first, rest} ->
      if n == chunks do
        send(gate, {:paused, self()})
        await_go()
      end

      size = byte_size(bytes)
      if n <= chunks, do: {first + size, rest}, else: {first, rest + size}
    end)
  end

  defp await_go do
    receive do
      :go -> :ok
    end
  end

  @doc "A process that is told `{:paused, pid}`, and says so to `paused/1`."
  def start_gate, do: spawn(fn -> gate(nil) end)

  defp gate(paused) do
    receive do
      {:paused, pid} ->
        gate(pid)

      {:who, from} ->
        send(from, {:paused, paused})
        gate(paused)
    end
  end

  def paused(gate) do
    send(gate, {:who, self()})

    receive do
      {:paused, pid} -> pid
    end
  end

  @doc "Reads so many bytes, and gives their number."
  def read_exactly(_process, 0), do: 0

  def read_exactly(process, size) do
    {:ok, bytes} = NetRunner.Process.read(process, size)
    byte_size(bytes) + read_exactly(process, size - byte_size(bytes))
  end

  @doc "Waits for the end of a command as a message: the pid in it, and the reason."
  def down(process) do
    ref = NetRunner.Process.monitor(process)

    receive do
      {:DOWN, ^ref, :process, pid, reason} -> {pid, reason}
    end
  end

  @doc """
  Asks for one piece, watches, and writes to a `cat`: gives all messages that come of that, until nothing is left. One watch
  is cancelled.
  """
  def follow(process, input) do
    :ok = NetRunner.Process.ask(process, 1)
    ref = NetRunner.Process.monitor(process)
    Process.demonitor(NetRunner.Process.monitor(process), [:flush])
    Enum.into(input, NetRunner.Process.sink(process, close: true))

    messages =
      for _ <- 1..5 do
        receive do
          {:net_runner, ^process, message} -> message
          {:DOWN, ^ref, :process, ^process, reason} -> {:down, reason}
        end
      end

    # What it was asked before is done.
    NetRunner.Process.stats(process)

    receive do
      {:net_runner, _, _} = more -> [more | messages]
      {:DOWN, _, _, _, _} = more -> [more | messages]
    after
      0 -> messages
    end
  end

  @doc "The error that a stream raises, after it has given something."
  def stream_until_error(command, options) do
    command |> NetRunner.stream!(options) |> Enum.each(fn _ -> :ok end)
  rescue
    error in NetRunner.Error -> {:raised, error.reason, Exception.message(error)}
  end

  @doc "A daemon, and in the end why it ended."
  def run_daemon(options) do
    Process.flag(:trap_exit, true)
    {:ok, daemon} = NetRunner.Daemon.start_link(options)

    receive do
      {:EXIT, ^daemon, reason} -> reason
    end
  end
end
