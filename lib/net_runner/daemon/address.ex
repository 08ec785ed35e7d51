defmodule NetRunner.Daemon.Address do
  @moduledoc false
  # An address at which a daemon is expected to listen, and whether somebody does.

  @type t ::
          {:tcp, String.t() | charlist() | :inet.ip_address(), :inet.port_number()}
          | {:unix, Path.t()}

  @timeout 1_000

  @doc """
  Tries to connect: to every address that a host name has, as it is not known at which the program listens. Gives the
  address that answered, or what was tried, both in words. A connection is closed at once.
  """
  @spec connect(t()) :: {:answers, String.t()} | {:silent, String.t()}
  def connect({:unix, path}) do
    case :gen_tcp.connect({:local, path}, 0, [:local, active: false], @timeout) do
      {:ok, socket} ->
        :gen_tcp.close(socket)
        {:answers, path}

      {:error, reason} ->
        {:silent, "no connection could be made to #{path} (#{in_words(reason)})"}
    end
  end

  def connect({:tcp, host, port}) do
    case resolve(host) do
      [] -> {:silent, "the host name #{host} has no address"}
      ips -> connect(ips, port, [])
    end
  end

  defp connect([], _port, failures) do
    {:silent, "no connection could be made to #{failures |> Enum.reverse() |> Enum.join(" or ")}"}
  end

  defp connect([ip | others], port, failures) do
    address = if tuple_size(ip) == 8, do: "[#{:inet.ntoa(ip)}]", else: "#{:inet.ntoa(ip)}"
    address = "#{address}:#{port}"

    case connect_to(ip, port) do
      :ok -> {:answers, address}
      {:error, reason} -> connect(others, port, ["#{address} (#{in_words(reason)})" | failures])
    end
  end

  defp connect_to(ip, port) do
    family = if tuple_size(ip) == 8, do: :inet6, else: :inet

    # Passive: what the program says at once is no message for this process, and its closing of the connection does not
    # close the socket before its names are asked for.
    with {:ok, socket} <- :gen_tcp.connect(ip, port, [family, active: false], @timeout) do
      {:ok, own} = :inet.sockname(socket)
      itself? = :inet.peername(socket) == {:ok, own}
      :gen_tcp.close(socket)

      # When nobody listens, and the kernel happens to choose that very port for our end, TCP connects the socket
      # with itself.
      if itself?, do: {:error, :econnrefused}, else: :ok
    end
  end

  # Both, also where the resolver knows only one (RFC 6761).
  @localhost [{0, 0, 0, 0, 0, 0, 0, 1}, {127, 0, 0, 1}]

  defp resolve(ip) when is_tuple(ip), do: [ip]
  defp resolve(name) when name in ["localhost", ~c"localhost"], do: @localhost

  defp resolve(name) do
    name = to_charlist(name)

    case :inet.parse_strict_address(name) do
      {:ok, ip} -> [ip]
      {:error, :einval} -> Enum.uniq(addresses(name, :inet6) ++ addresses(name, :inet))
    end
  end

  # Where a name has IPv4 addresses only, some resolvers give them in the form of IPv6 as well.
  defp addresses(name, family) do
    case :inet.getaddrs(name, family) do
      {:ok, ips} -> Enum.reject(ips, &match?({0, 0, 0, 0, 0, 0xFFFF, _, _}, &1))
      {:error, _} -> []
    end
  end

  defp in_words(:timeout), do: "no answer within #{@timeout} ms"
  defp in_words(reason), do: :inet.format_error(reason)
end
