# A server that is not written in Elixir, as a child of a supervisor: started before what needs it, started again when it crashes,
# and gone when the supervisor stops.
#
#     mix run examples/supervised.exs
#
# The server is Python's web server. It chooses a port by itself and prints it, so this also shows how to learn something from a
# daemon's output.

defmodule WebServer do
  @doc "The child spec. Serves a folder, and sends `{:port, port}` to `notify` each time that the server has started."
  def child_spec({folder, notify}) do
    NetRunner.Daemon.child_spec(
      cmd: "python3",
      args: ~w(-u -m http.server 0 --bind 127.0.0.1),
      name: __MODULE__,
      on_line: fn line ->
        with [_, port] <- Regex.run(~r/^Serving HTTP on 127\.0\.0\.1 port (\d+)/, line),
             do: send(notify, {:port, String.to_integer(port)})
      end,
      # The supervisor goes on with the next child when the server has said this.
      ready: {:output, ~r/^Serving HTTP/m},
      ready_timeout: 60_000,
      # Nothing of the application's environment.
      process_opts: [
        cd: folder,
        clear_env: true,
        env: %{"PATH" => "/usr/local/bin:/usr/bin:/bin"}
      ]
    )
  end

  @doc "The status line of the answer to a request."
  def request(port) do
    {:ok, socket} =
      :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false, packet: :line])

    :ok = :gen_tcp.send(socket, "HEAD / HTTP/1.0\r\n\r\n")
    {:ok, status} = :gen_tcp.recv(socket, 0, 60_000)
    :gen_tcp.close(socket)
    String.trim(status)
  end

  def await_port do
    receive do
      {:port, port} -> port
    after
      60_000 -> raise "the server did not say its port"
    end
  end
end

folder = Path.join(System.tmp_dir!(), "supervised_#{System.pid()}")
File.mkdir_p!(folder)

try do
  {:ok, supervisor} =
    Supervisor.start_link([{WebServer, {folder, self()}}], strategy: :one_for_one)

  IO.puts("== Started")
  IO.puts(WebServer.await_port() |> WebServer.request())

  IO.puts("== Killed, and started again")
  first = NetRunner.Daemon.os_pid(WebServer)
  :ok = NetRunner.Daemon.kill(WebServer, :sigkill)
  IO.puts(WebServer.await_port() |> WebServer.request())
  IO.puts("another process: #{first != NetRunner.Daemon.os_pid(WebServer)}")

  IO.puts("== Stopped")
  :ok = Supervisor.stop(supervisor)
  IO.puts("commands that run: #{length(NetRunner.list())}")
after
  File.rmdir(folder)
end
