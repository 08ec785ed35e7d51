defmodule NetRunner.MixProject.Precompiled do
  @moduledoc false
  # A tarball with the native part (the NIF and the helper program), for users without Rust. `mix net_runner.precompile`
  # packs it; the compiler step fetches it from a path or a URL and installs it when its checksum is the configured one, and
  # it is for this machine and from these sources. Every error is a sentence that says what is wrong and what to do.

  # Newer versions of Elixir hide them until `start/1` asks for them.
  @compile {:no_warn_undefined, [:crypto, :httpc, :inets, :public_key]}

  @manifest "net_runner.txt"
  @programs ~w(net_runner_nif.so net_runner_shepherd)
  @executable 0o755

  @location "NET_RUNNER_PRECOMPILED"
  @checksum "NET_RUNNER_PRECOMPILED_SHA256"

  @connect_timeout 30_000
  @timeout 300_000
  @redirections 5

  @with_cargo "To build with cargo instead, remove `config :net_runner, :precompiled`, or set #{@location}=false"

  @type facts :: %{
          version: String.t(),
          target: String.t(),
          nif: String.t(),
          glibc: String.t(),
          sources: String.t()
        }

  # --- what is configured -----------------------------------------------------------------------------

  @doc "What somebody has configured, unchecked: the environment comes first. `nil`: nothing, so cargo is called."
  def setting do
    case System.get_env(@location) do
      nil -> Application.get_env(:net_runner, :precompiled) || nil
      off when off in ["", "false"] -> nil
      from -> [from: from, sha256: System.get_env(@checksum)]
    end
  end

  @doc "Where the tarball for a target is, and its checksum."
  def parse(setting, target) do
    with true <- Keyword.keyword?(setting),
         [] <- Keyword.keys(setting) -- [:from, :sha256],
         {:ok, location} <- location(setting[:from], target),
         {:ok, sha256} <- sha256(setting[:sha256], target) do
      {:ok, location, sha256}
    else
      {:error, sentence} ->
        {:error, sentence}

      _ ->
        {:error,
         "`config :net_runner, :precompiled` must be `[from: path_or_url, sha256: checksum]`, got: #{inspect(setting)}"}
    end
  end

  defp location(from, target) when is_binary(from) do
    from = String.replace(from, "{target}", target)

    cond do
      from =~ ~r{\Ahttps?://} -> {:ok, {:url, from}}
      Path.type(from) == :absolute -> {:ok, {:path, from}}
      true -> {:error, "#{inspect(from)} is neither an absolute path nor a URL (http, https)"}
    end
  end

  defp location(from, _target) do
    {:error,
     "`:from` must be a string: an absolute path or a URL (http, https), got: #{inspect(from)}"}
  end

  defp sha256(checksums, target) when is_map(checksums) do
    # `%{"x86_64-unknown-linux-gnu": "…"}` has atoms, and looks the same in a message.
    checksums = Map.new(checksums, fn {name, checksum} -> {to_string(name), checksum} end)

    case checksums do
      %{^target => checksum} ->
        sha256(checksum, target)

      _ ->
        {:error,
         "`:sha256` has no checksum for #{target}, which this VM needs; it has: #{names(checksums)}. #{@with_cargo}"}
    end
  end

  defp sha256(checksum, _target) when is_binary(checksum) do
    if checksum =~ ~r/\A[0-9a-fA-F]{64}\z/ do
      {:ok, String.downcase(checksum)}
    else
      {:error,
       "#{inspect(checksum)} is no SHA-256 in hexadecimal (64 digits); the file beside the tarball, " <>
         "whose name ends in .sha256, begins with it"}
    end
  end

  defp sha256(_checksum, _target) do
    {:error,
     "the checksum is missing: set `:sha256`, or #{@checksum} beside #{@location}, to the SHA-256 of the tarball"}
  end

  defp names(map), do: map |> Map.keys() |> Enum.sort() |> Enum.join(", ")

  @doc "A text without what may be secret in URLs: a user and a password, and what follows a question mark."
  def without_secrets(text) do
    text
    |> String.replace(~r{(://)[^/\s"]*@}, "\\1")
    |> String.replace(~r{(://[^?\s"]*\?)[^\s"]*}, "\\1…")
  end

  # --- targets ----------------------------------------------------------------------------------------

  @doc "What the native part must be built for: what cargo is told to build for, or what the VM was built for."
  def target do
    canonical(
      System.get_env("CARGO_BUILD_TARGET") ||
        List.to_string(:erlang.system_info(:system_architecture))
    )
  end

  @doc "The name that Rust has for a target. The VM may name the vendor, and has other names for some processors."
  def canonical(triple) do
    [machine | _] = parts = String.split(triple, "-")
    machine = machine(machine)

    cond do
      triple =~ "-linux" -> "#{machine}-unknown-linux-#{abi(List.last(parts))}"
      triple =~ "-darwin" -> "#{machine}-apple-darwin"
      system = Regex.run(~r/freebsd|openbsd|netbsd/, triple) -> "#{machine}-unknown-#{system}"
      true -> triple
    end
  end

  defp machine("amd64"), do: "x86_64"
  defp machine("arm64"), do: "aarch64"
  defp machine("armv7l"), do: "armv7"
  defp machine("riscv64"), do: "riscv64gc"
  defp machine(<<"i", digit, "86">>) when digit in ?3..?5, do: "i686"
  defp machine(machine), do: machine

  defp abi("linux" <> _), do: "gnu"
  defp abi(abi), do: abi

  # --- pack -------------------------------------------------------------------------------------------

  @doc "The name of a tarball, which says what it is for."
  def file_name(facts),
    do: "net_runner-#{facts.version}-nif-#{facts.nif}-#{facts.target}.tar.gz"

  @doc """
  Writes a tarball of these programs, each a name and its bytes, and a file with its checksum beside it. The same bytes in
  give the same bytes out.
  """
  def pack(directory, programs, facts) do
    path = Path.join(directory, file_name(facts))
    manifest = for {name, value} <- Enum.sort(facts), into: "", do: "#{name}: #{value}\n"
    unzipped = path <> ".tmp"
    {:ok, tar} = :erl_tar.open(String.to_charlist(unzipped), [:write])

    for {name, bytes} <- [{@manifest, manifest} | Enum.sort(programs)] do
      options = [mode: @executable, mtime: 0, atime: 0, ctime: 0, uid: 0, gid: 0]
      :ok = :erl_tar.add(tar, bytes, String.to_charlist(name), options)
    end

    :ok = :erl_tar.close(tar)
    tarball = unzipped |> File.read!() |> :zlib.gzip()
    File.rm!(unzipped)
    File.write!(path, tarball)
    # As sha256sum(1) writes and checks it.
    File.write!(path <> ".sha256", "#{sha256_of(tarball)}  #{Path.basename(path)}\n")
    path
  end

  @doc "The newest glibc that a library asks for by a symbol's version; \"none\" where it asks for none."
  def glibc(library) do
    ~r/GLIBC_(\d+)\.(\d+)/
    |> Regex.scan(library, capture: :all_but_first)
    |> Enum.map(fn parts -> Enum.map(parts, &String.to_integer/1) end)
    |> Enum.max(fn -> [] end)
    |> case do
      [] -> "none"
      parts -> Enum.join(parts, ".")
    end
  end

  @doc "As the configuration has it."
  def sha256_of(bytes), do: :crypto.hash(:sha256, bytes) |> Base.encode16(case: :lower)

  # --- fetch ------------------------------------------------------------------------------------------

  @doc "The bytes of a tarball."
  def fetch({:path, path}) do
    with {:error, reason} <- File.read(path) do
      {:error, "#{path} cannot be read: #{:file.format_error(reason)}. #{@with_cargo}"}
    end
  end

  def fetch({:url, url}) do
    with :ok <- start([:inets, :ssl, :public_key]), do: download(url)
  end

  # Applications of OTP that Mix does not have by itself, and that Debian has in packages of their own.
  defp start(applications) do
    Enum.find_value(applications, :ok, fn application ->
      # Since Elixir 1.15, Mix hides what a project does not name.
      if function_exported?(Mix, :ensure_application!, 1),
        do: apply(Mix, :ensure_application!, [application])

      with {:error, _reason} <- Application.ensure_all_started(application) do
        {:error,
         "OTP's application #{inspect(application)} is needed and is not on this system: install it (on Debian, the " <>
           "package erlang-#{String.replace("#{application}", "_", "-")})"}
      else
        {:ok, _} -> nil
      end
    end)
  end

  @profile :net_runner_precompiled

  defp download(url) do
    {:ok, _} = :inets.start(:httpc, profile: @profile)

    try do
      :ok = :httpc.set_options(proxies(), @profile)
      get(url, @redirections)
    after
      :inets.stop(:httpc, @profile)
    end
  end

  # The client would follow by itself, but with the password of the first server, and from https to http.
  defp get(url, redirections) do
    # A connection of its own: a server may close one that is kept for the next request just when that is sent.
    headers = [{~c"user-agent", ~c"net_runner"}, {~c"connection", ~c"close"}]
    request = {String.to_charlist(url), headers}

    with {:ok, tls} <- tls(url) do
      http = [timeout: @timeout, connect_timeout: @connect_timeout, autoredirect: false] ++ tls
      answer = :httpc.request(:get, request, http, [body_format: :binary], @profile)

      case redirection(url, answer) do
        nil ->
          answer(url, answer)

        next when redirections > 0 ->
          if url =~ ~r{\Ahttps:} and not (next =~ ~r{\Ahttps:}),
            do: {:error, "#{url} leads from https to #{next}: set the URL of the file itself"},
            else: get(next, redirections - 1)

        _next ->
          {:error, "#{url} leads on too often: set the URL of the file itself"}
      end
    end
  end

  defp redirection(url, {:ok, {{_, status, _}, headers, _}})
       when status in [301, 302, 303, 307, 308] do
    with {_, location} <- List.keyfind(headers, ~c"location", 0),
         do: url |> URI.merge(List.to_string(location)) |> URI.to_string()
  end

  defp redirection(_url, _answer), do: nil

  defp answer(_url, {:ok, {{_, 200, _}, _headers, body}}), do: {:ok, body}

  defp answer(url, {:ok, {{_, status, reason}, _headers, _body}}) do
    {:error, "#{url} answers #{status} #{reason}: see whether the URL is right. #{@with_cargo}"}
  end

  defp answer(url, {:error, reason}) do
    {:error, "#{url} cannot be downloaded: #{network_error(reason)}. #{@with_cargo}"}
  end

  defp network_error({:failed_connect, details}) do
    case List.keyfind(details, :inet, 0) do
      {:inet, _, {:tls_alert, {alert, text}}} ->
        "its certificate or its TLS is refused (#{alert}: #{text |> to_string() |> String.split() |> Enum.join(" ")})"

      {:inet, _, reason} when is_atom(reason) ->
        "no connection (#{:inet.format_error(reason)})"

      _ ->
        "no connection (#{inspect(details)})"
    end
  end

  defp network_error(reason)
       when reason in [:socket_closed_remotely, {:shutdown, :server_closed}],
       do: "the server closed the connection too early"

  defp network_error(:timeout), do: "it did not arrive within #{div(@timeout, 1000)} seconds"
  defp network_error(reason), do: inspect(reason)

  defp tls(url) do
    {:ok,
     [
       ssl: [
         verify: :verify_peer,
         cacerts: :public_key.cacerts_get(),
         customize_hostname_check: [
           match_fun: :public_key.pkix_verify_hostname_match_fun(:https)
         ]
       ]
     ]}
  rescue
    # It has none, or they cannot be read.
    _error ->
      if url =~ ~r{\Ahttp://},
        do: {:ok, []},
        else:
          {:error,
           "this system has no certificates to check #{url} with: install them (on Debian, the package " <>
             "ca-certificates), or download the file, and set its path"}
  end

  defp proxies do
    none =
      for host <- variable("no_proxy") |> String.split(",", trim: true),
          do: String.to_charlist(host)

    for {option, name} <- [proxy: "http_proxy", https_proxy: "https_proxy"],
        %URI{host: host, port: port} when is_binary(host) and is_integer(port) <- [
          URI.parse(variable(name))
        ],
        do: {option, {{String.to_charlist(host), port}, none}}
  end

  defp variable(name), do: System.get_env(name) || System.get_env(String.upcase(name)) || ""

  # --- check and unpack -------------------------------------------------------------------------------

  @doc "The programs in a tarball, each a name and its bytes, when all is as it should be."
  def unpack(tarball, sha256, facts) do
    with :ok <- start([:crypto]),
         :ok <- check_sum(tarball, sha256),
         {:ok, files} <- extract(tarball),
         {:ok, found} <- manifest(files),
         :ok <- check(found, facts) do
      {:ok, Map.take(files, @programs)}
    end
  end

  defp check_sum(tarball, sha256) do
    case sha256_of(tarball) do
      ^sha256 ->
        :ok

      other ->
        {:error,
         "its SHA-256 is #{other} (of #{byte_size(tarball)} bytes), and #{sha256} is configured: it is truncated, " <>
           "damaged, or another tarball. Get it again, and the checksum from where it was made"}
    end
  end

  defp extract(tarball) do
    with {:ok, tar} <- gunzip(tarball),
         {:ok, files} <- :erl_tar.extract({:binary, tar}, [:memory]),
         files = Map.new(files, fn {name, bytes} -> {List.to_string(name), bytes} end),
         [] <- [@manifest | @programs] -- Map.keys(files) do
      {:ok, files}
    else
      _ -> foreign()
    end
  end

  defp gunzip(tarball) do
    {:ok, :zlib.gunzip(tarball)}
  rescue
    ErlangError -> :error
  end

  defp manifest(files) do
    lines =
      for line <- String.split(files[@manifest], "\n", trim: true),
          do: String.split(line, ": ", parts: 2)

    found = for [name, value] <- lines, into: %{}, do: {name, value}

    case found do
      %{
        "version" => version,
        "target" => target,
        "nif" => nif,
        "glibc" => glibc,
        "sources" => sources
      } ->
        {:ok, %{version: version, target: target, nif: nif, glibc: glibc, sources: sources}}

      _ ->
        foreign()
    end
  end

  defp foreign do
    {:error,
     "it is not a tarball of `mix net_runner.precompile`: set the path or the URL of one. #{@with_cargo}"}
  end

  defp check(found, facts) do
    cond do
      found.target != facts.target ->
        {:error,
         "it is for #{found.target}, and this VM needs #{facts.target}: set the tarball for that (`{target}` in `:from` " <>
           "stands for it), or make one with `mix net_runner.precompile` on such a machine"}

      found.version != facts.version ->
        {:error,
         "it is of NetRunner #{found.version}, and this is #{facts.version}: set the tarball of this version"}

      found.sources != facts.sources ->
        {:error,
         "it was built from other sources than these, also of version #{facts.version}: make one from these with " <>
           "`mix net_runner.precompile`"}

      not nif?(found.nif, facts.nif) ->
        {:error,
         "it needs NIF version #{found.nif}, and this VM has #{facts.nif}: a newer Erlang/OTP is needed"}

      not glibc?(found.glibc, facts.glibc) ->
        {:error,
         "it needs glibc #{found.glibc}, and this system has #{facts.glibc}: make a tarball with " <>
           "`mix net_runner.precompile` on a system that is as old as this one"}

      true ->
        :ok
    end
  end

  # erl_nif(3): the VM loads libraries of the same major version with the same or a lower minor one.
  defp nif?(needed, there) do
    [needed_major | needed_minor] = numbers(needed)
    [major | minor] = numbers(there)
    needed_major == major and needed_minor <= minor
  end

  defp glibc?("none", _there), do: true
  defp glibc?(_needed, "unknown"), do: true
  defp glibc?(needed, there), do: numbers(needed) <= numbers(there)

  defp numbers(version), do: version |> String.split(".") |> Enum.map(&String.to_integer/1)

  @doc "The glibc of this system; \"unknown\" where there is none, or the native part is for another system."
  def glibc_here do
    with nil <- System.get_env("CARGO_BUILD_TARGET"),
         getconf when getconf != nil <- System.find_executable("getconf"),
         {"glibc " <> version, 0} <-
           System.cmd(getconf, ["GNU_LIBC_VERSION"], stderr_to_stdout: true),
         [version] <- Regex.run(~r/\A\d+(?:\.\d+)*/, version) do
      version
    else
      _ -> "unknown"
    end
  end
end
