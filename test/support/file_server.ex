defmodule NetRunner.FileServer do
  @moduledoc false
  # A small HTTP server for tests. It answers each request on a connection of its own, and ends with the process that
  # started it.

  # Newer versions of Elixir hide it until a test asks for it.
  @compile {:no_warn_undefined, :ssl}

  @doc """
  Starts it, and gives its URL. `answer` gets what a request asks for (a path, or a whole URL of a proxy's client), and gives
  an answer, which can be one of those below; one of two arguments gets the lines of the headers, too. `tls`: options of a server (`:ssl.listen/2`).
  """
  def start_link(answer, tls \\ nil) do
    {transport, options, scheme} = if tls, do: {:ssl, tls, "https"}, else: {:gen_tcp, [], "http"}
    common = [:binary, ip: {127, 0, 0, 1}, packet: :line, active: false]
    {:ok, listening} = transport.listen(0, common ++ options)

    {:ok, {_, port}} = name(transport, listening)

    spawn_link(fn -> serve(transport, listening, answer) end)
    "#{scheme}://localhost:#{port}"
  end

  @doc "All of it."
  def ok(body), do: part(body, byte_size(body))

  @doc "A body that is announced with another size."
  def part(body, size), do: ["HTTP/1.1 200 OK\r\ncontent-length: #{size}\r\n\r\n", body]

  @doc "Without a body."
  def status(line, headers \\ ""), do: "HTTP/1.1 #{line}\r\n#{headers}content-length: 0\r\n\r\n"

  defp serve(transport, listening, answer) do
    with {:ok, socket} <- accept(transport, listening) do
      with {:ok, "GET " <> rest} <- transport.recv(socket, 0),
           {:ok, headers} <- headers(transport, socket, []) do
        [target | _] = String.split(rest, " ")
        arguments = if is_function(answer, 2), do: [target, headers], else: [target]
        transport.send(socket, apply(answer, arguments))
      end

      transport.close(socket)
    end

    serve(transport, listening, answer)
  end

  # `:ssl` by the variable: a call by name would make Mix want it among the applications of this project.
  defp name(:gen_tcp, listening), do: :inet.sockname(listening)
  defp name(:ssl = transport, listening), do: transport.sockname(listening)

  defp accept(:gen_tcp, listening), do: :gen_tcp.accept(listening)

  defp accept(:ssl = transport, listening) do
    with {:ok, socket} <- transport.transport_accept(listening), do: transport.handshake(socket)
  end

  defp headers(transport, socket, lines) do
    case transport.recv(socket, 0) do
      {:ok, "\r\n"} -> {:ok, lines}
      {:ok, line} -> headers(transport, socket, [line | lines])
      error -> error
    end
  end
end
