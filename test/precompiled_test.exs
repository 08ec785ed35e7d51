defmodule NetRunner.PrecompiledTest do
  # What is checked before a precompiled native part is installed. build/tarball_test.exs installs some for real.
  # Not beside other tests: proxies are set in the environment of the VM.
  use ExUnit.Case, async: false

  alias NetRunner.FileServer
  alias NetRunner.MixProject.Precompiled

  @compile {:no_warn_undefined, [:public_key, :ssl]}

  @programs [{"net_runner_nif.so", "a library"}, {"net_runner_shepherd", "a program"}]
  @facts %{
    version: "0.1.0",
    target: "x86_64-unknown-linux-gnu",
    nif: "2.15",
    glibc: "2.34",
    sources: "abc"
  }

  setup_all do
    directory = NetRunner.Temporary.path("precompiled")

    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    path = Precompiled.pack(directory, @programs, @facts)
    tarball = File.read!(path)

    %{
      directory: directory,
      path: path,
      tarball: tarball,
      sha256: Precompiled.sha256_of(tarball)
    }
  end

  test "a tarball names what it is for, has its checksum beside it, and is always the same",
       context do
    name = "net_runner-0.1.0-nif-2.15-x86_64-unknown-linux-gnu.tar.gz"
    assert Path.basename(context.path) == name
    assert File.read!(context.path <> ".sha256") == "#{context.sha256}  #{name}\n"
    assert {_, 0} = System.cmd("sha256sum", ["-c", name <> ".sha256"], cd: context.directory)
    assert Enum.sort(File.ls!(context.directory)) == [name, name <> ".sha256"]

    assert File.read!(Precompiled.pack(context.directory, Enum.reverse(@programs), @facts)) ==
             context.tarball
  end

  test "what was packed is unpacked", %{tarball: tarball, sha256: sha256} do
    assert Precompiled.unpack(tarball, sha256, @facts) == {:ok, Map.new(@programs)}
  end

  describe "refused, with a sentence that says why, is" do
    test "another checksum, and a truncated file", context do
      wrong = String.duplicate("0", 64)
      assert {:error, sentence} = Precompiled.unpack(context.tarball, wrong, @facts)

      assert sentence =~
               "its SHA-256 is #{context.sha256} (of #{byte_size(context.tarball)} bytes)"

      assert sentence =~ "#{wrong} is configured"

      half = binary_part(context.tarball, 0, div(byte_size(context.tarball), 2))
      assert {:error, sentence} = Precompiled.unpack(half, context.sha256, @facts)
      assert sentence =~ "(of #{byte_size(half)} bytes)" and sentence =~ "truncated"
    end

    test "what is no tarball, though the checksum is its own", context do
      half = binary_part(context.tarball, 0, div(byte_size(context.tarball), 2))
      unzipped = :zlib.gunzip(context.tarball)
      cut = :zlib.gzip(binary_part(unzipped, 0, 700))
      other = File.read!(packed(context.directory, [{"net_runner_nif.so", "x"}], @facts))
      unnamed = File.read!(packed(context.directory, @programs, Map.delete(@facts, :sources)))

      for bytes <- ["", "hello", half, unzipped, cut, other, unnamed] do
        assert {:error, sentence} =
                 Precompiled.unpack(bytes, Precompiled.sha256_of(bytes), @facts)

        assert sentence =~ "is not a tarball of `mix net_runner.precompile`"
      end
    end

    test "one for another machine, version, VM or C library", context do
      for {changes, expected} <- [
            {%{target: "aarch64-unknown-linux-gnu"},
             "is for x86_64-unknown-linux-gnu, and this VM needs aarch64-unknown-linux-gnu"},
            {%{target: "x86_64-apple-darwin"}, "this VM needs x86_64-apple-darwin"},
            {%{target: "x86_64-unknown-linux-musl"}, "this VM needs x86_64-unknown-linux-musl"},
            {%{version: "0.2.0"}, "is of NetRunner 0.1.0, and this is 0.2.0"},
            {%{sources: "def"}, "was built from other sources"},
            {%{nif: "2.14"}, "needs NIF version 2.15, and this VM has 2.14"},
            {%{nif: "3.20"}, "needs NIF version 2.15, and this VM has 3.20"},
            {%{glibc: "2.31"}, "needs glibc 2.34, and this system has 2.31"},
            {%{glibc: "2.9"}, "needs glibc 2.34"}
          ] do
        there = Map.merge(@facts, changes)
        assert {:error, sentence} = Precompiled.unpack(context.tarball, context.sha256, there)
        assert sentence =~ expected
      end

      for changes <- [%{nif: "2.17"}, %{glibc: "2.41"}, %{glibc: "3.0"}, %{glibc: "unknown"}] do
        there = Map.merge(@facts, changes)
        assert {:ok, _} = Precompiled.unpack(context.tarball, context.sha256, there)
      end
    end
  end

  test "the glibc that a library needs is the newest of its symbols' versions" do
    assert Precompiled.glibc("\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.4\0") == "2.34"
    assert Precompiled.glibc("\0musl\0") == "none"
    assert Precompiled.glibc_here() =~ ~r/^(\d+\.\d+|unknown)$/
  end

  test "targets have the names of Rust, whatever the VM calls them" do
    for {name, target} <- [
          {"x86_64-pc-linux-gnu", "x86_64-unknown-linux-gnu"},
          {"x86_64-redhat-linux", "x86_64-unknown-linux-gnu"},
          {"x86_64-alpine-linux-musl", "x86_64-unknown-linux-musl"},
          {"aarch64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"},
          {"armv7l-unknown-linux-gnueabihf", "armv7-unknown-linux-gnueabihf"},
          {"i386-pc-linux-gnu", "i686-unknown-linux-gnu"},
          {"riscv64-unknown-linux-gnu", "riscv64gc-unknown-linux-gnu"},
          {"aarch64-apple-darwin23.6.0", "aarch64-apple-darwin"},
          {"arm64-apple-darwin", "aarch64-apple-darwin"},
          {"amd64-portbld-freebsd14.1", "x86_64-unknown-freebsd"},
          {"amd64-unknown-openbsd", "x86_64-unknown-openbsd"}
        ] do
      assert Precompiled.canonical(name) == target
      assert Precompiled.canonical(target) == target
    end
  end

  describe "the configuration" do
    @target "x86_64-unknown-linux-gnu"
    @sum String.duplicate("aB", 32)

    test "is a path or a URL, for one target or several, and a checksum" do
      sum = String.downcase(@sum)

      for {from, location} <- [
            {"/srv/x.tar.gz", {:path, "/srv/x.tar.gz"}},
            {"/srv/{target}.tar.gz", {:path, "/srv/#{@target}.tar.gz"}},
            {"https://localhost/{target}", {:url, "https://localhost/#{@target}"}},
            {"http://localhost/x", {:url, "http://localhost/x"}}
          ],
          sha256 <- [
            @sum,
            %{@target => @sum, "aarch64-apple-darwin" => "?"},
            %{String.to_atom(@target) => @sum}
          ] do
        assert Precompiled.parse([from: from, sha256: sha256], @target) == {:ok, location, sum}
      end
    end

    test "that makes no sense is told so" do
      for {setting, expected} <- [
            {[from: "x.tar.gz", sha256: @sum], "neither an absolute path nor a URL"},
            {[from: "ftp://localhost/x", sha256: @sum], "neither an absolute path nor a URL"},
            {[from: :x, sha256: @sum], "`:from` must be a string"},
            {[sha256: @sum], "`:from` must be a string"},
            {[from: "/x"], "the checksum is missing"},
            {[from: "/x", sha256: nil], "NET_RUNNER_PRECOMPILED_SHA256"},
            {[from: "/x", sha256: "abc"], "is no SHA-256 in hexadecimal"},
            {[from: "/x", sha256: @sum <> "\n"], "is no SHA-256 in hexadecimal"},
            {[from: "/x", sha256: %{"aarch64-apple-darwin" => @sum}],
             "has no checksum for #{@target}, which this VM needs; it has: aarch64-apple-darwin"},
            {[from: "/x", sha256: @sum, sha: 1], "must be `[from: path_or_url"},
            {"/x", "must be `[from: path_or_url"}
          ] do
        assert {:error, sentence} = Precompiled.parse(setting, @target)
        assert sentence =~ expected
      end
    end
  end

  test "what may be secret in a URL is not shown" do
    for {text, shown} <- [
          {"/srv/a?b@c", "/srv/a?b@c"},
          {"https://example.com/x: it", "https://example.com/x: it"},
          {"https://me@example.com:1/x@2", "https://example.com:1/x@2"},
          {~s(see "http://me:p@ss@example.com?t=a b" and), ~s(see "http://example.com?… b" and)},
          {"http://a/x answers ?, https://b:c@d/e?f", "http://a/x answers ?, https://d/e?…"}
        ],
        do: assert(Precompiled.without_secrets(text) == shown)
  end

  describe "a file that" do
    test "is there is read; one that is missing is named", context do
      assert Precompiled.fetch({:path, context.path}) == {:ok, context.tarball}
      assert {:error, sentence} = Precompiled.fetch({:path, "/no/such/file"})
      assert sentence =~ "/no/such/file cannot be read: no such file or directory"
      assert sentence =~ "To build with cargo instead"
    end
  end

  describe "a server" do
    test "that has it, also behind a redirection", %{tarball: tarball} do
      answer = fn
        "/x.tar.gz" -> FileServer.ok(tarball)
        "/moved" -> FileServer.status("302 Found", "location: /x.tar.gz\r\n")
      end

      url = FileServer.start_link(answer)

      for path <- ["/x.tar.gz", "/moved"],
          do: assert(Precompiled.fetch({:url, url <> path}) == {:ok, tarball})
    end

    test "that leads on to another one does not get it the password", %{tarball: tarball} do
      test = self()
      password? = fn headers -> Enum.any?(headers, &(&1 =~ ~r/\Aauthorization:/i)) end

      other =
        FileServer.start_link(fn "/x", headers ->
          send(test, {:other, password?.(headers)})
          FileServer.ok(tarball)
        end)

      first =
        FileServer.start_link(fn
          "/same", headers ->
            send(test, {:first, password?.(headers)})
            FileServer.status("301 Moved Permanently", "location: /other\r\n")

          "/other", headers ->
            send(test, {:first, password?.(headers)})
            FileServer.status("302 Found", "location: #{other}/x\r\n")
        end)

      url = String.replace(first, "//", "//me:secret@") <> "/same"
      assert Precompiled.fetch({:url, url}) == {:ok, tarball}
      assert_received {:first, true}
      assert_received {:first, true}
      assert_received {:other, false}
    end

    test "is asked for no connection that lasts, which it could close before the next request" do
      test = self()

      url =
        FileServer.start_link(fn "/x", headers ->
          send(test, {:headers, headers})
          FileServer.status("404 Not Found")
        end)

      assert {:error, _} = Precompiled.fetch({:url, url <> "/x"})
      assert_received {:headers, headers}
      assert Enum.any?(headers, &(&1 =~ ~r/\Aconnection: close\r\n/i))
    end

    test "that leads on for ever is left" do
      url = FileServer.start_link(fn _ -> FileServer.status("302 Found", "location: /x\r\n") end)

      assert {:error, sentence} = Precompiled.fetch({:url, url <> "/x"})
      assert sentence =~ "#{url}/x leads on too often"
    end

    test "that has it not, stops in the middle, or is not there", %{tarball: tarball} do
      answer = fn
        "/missing" -> FileServer.status("404 Not Found")
        "/broken" -> FileServer.status("503 Service Unavailable")
        "/cut" -> FileServer.part(binary_part(tarball, 0, 100), byte_size(tarball))
        "/nonsense" -> "hello\r\n\r\n"
      end

      url = FileServer.start_link(answer)

      for {path, expected} <- [
            {"/missing", "answers 404 Not Found: see whether the URL is right"},
            {"/broken", "answers 503 Service Unavailable"},
            {"/cut", "cannot be downloaded: the server closed the connection too early"},
            {"/nonsense", "cannot be downloaded: "}
          ] do
        assert {:error, sentence} = Precompiled.fetch({:url, url <> path})
        assert sentence =~ url <> path
        assert sentence =~ expected
      end

      nobody = "http://localhost:#{NetRunner.Guarantees.Nodes.free_port()}/x"
      assert {:error, sentence} = Precompiled.fetch({:url, nobody})
      assert sentence =~ "no connection (connection refused)"
    end

    test "is reached through the proxy that the environment names", %{tarball: tarball} do
      test = self()

      proxy =
        FileServer.start_link(fn target ->
          send(test, {:asked, target})
          FileServer.ok(tarball)
        end)

      System.put_env("http_proxy", proxy)
      on_exit(fn -> System.delete_env("http_proxy") end)
      url = "http://packages.invalid/x.tar.gz"
      assert Precompiled.fetch({:url, url}) == {:ok, tarball}
      assert_received {:asked, ^url}
    end

    test "with https must have a certificate that the system trusts", context do
      # Loads what it needs.
      {:error, _} = Precompiled.fetch({:url, "https://localhost:1/"})
      {server, trusted} = certificates()
      url = FileServer.start_link(fn _ -> FileServer.ok(context.tarball) end, server) <> "/x"

      for _ <- 1..2 do
        assert {:error, sentence} = Precompiled.fetch({:url, url})
        assert sentence =~ "its certificate or its TLS is refused (unknown_ca"
      end

      :ok = :public_key.cacerts_load(String.to_charlist(trusted_file(trusted)))
      on_exit(fn -> :public_key.cacerts_clear() end)
      assert Precompiled.fetch({:url, url}) == {:ok, context.tarball}

      open = FileServer.start_link(fn _ -> FileServer.ok(context.tarball) end) <> "/x"

      leading =
        FileServer.start_link(
          fn _ -> FileServer.status("302 Found", "location: #{open}\r\n") end,
          server
        )

      assert {:error, sentence} = Precompiled.fetch({:url, leading})
      assert sentence =~ "#{leading} leads from https to #{open}"

      # It is of localhost, not of whoever answers there.
      elsewhere = String.replace(url, "localhost", "127.0.0.1")
      assert {:error, sentence} = Precompiled.fetch({:url, elsewhere})
      assert sentence =~ "its certificate or its TLS is refused ("
      assert sentence =~ "hostname_check_failed"
    end
  end

  defp certificates do
    root = [key: {:namedCurve, :secp256r1}, digest: :sha256]
    # A name of the server: subjectAltName.
    name = {:Extension, {2, 5, 29, 17}, false, [{:dNSName, ~c"localhost"}]}

    %{server_config: server, client_config: client} =
      :public_key.pkix_test_data(%{
        server_chain: %{root: root, intermediates: [], peer: [extensions: [name]] ++ root},
        client_chain: %{root: root, intermediates: [], peer: root}
      })

    {server, client[:cacerts]}
  end

  defp trusted_file(certificates) do
    path = NetRunner.Temporary.path("trusted", ".pem")

    on_exit(fn -> File.rm(path) end)
    entries = for der <- certificates, do: {:Certificate, der, :not_encrypted}
    File.write!(path, :public_key.pem_encode(entries))
    path
  end

  # Somewhere else than the good one.
  defp packed(directory, programs, facts) do
    other = Path.join(directory, "other")
    File.mkdir_p!(other)
    on_exit(fn -> File.rm_rf!(other) end)
    Precompiled.pack(other, programs, facts)
  end
end
