defmodule Mix.Tasks.NetRunner.Precompile do
  @shortdoc "Packs NetRunner's native part for machines without Rust"

  @moduledoc """
  Builds NetRunner's native part (the NIF and the helper program) with cargo, and packs it into a tarball for machines that
  have no Rust.

      $ mix net_runner.precompile
      $ mix net_runner.precompile --output /srv/packages

  In the folder of `--output` (else the current one) it writes `net_runner-VERSION-nif-NIF-TARGET.tar.gz` and, beside it, a file
  with its SHA-256 whose name ends in `.sha256`. The same build gives the same tarball.

  ## Where it is used

  In the application's `config/config.exs`:

      config :net_runner, :precompiled,
        from: "https://packages.example.com/net_runner-0.1.0-nif-2.15-{target}.tar.gz",
        sha256: %{
          "x86_64-unknown-linux-gnu" => "3c4f…",
          "aarch64-unknown-linux-gnu" => "9a01…"
        }

  | key | |
  |---|---|
  | `:from` | an absolute path, or a URL with `https` or `http`; `{target}` in it stands for the target of the machine that compiles |
  | `:sha256` | the tarball's checksum in hexadecimal, or a map with one for each target |

  `mix compile` then installs the tarball and calls no cargo. It does so only if the checksum is the configured one, and the
  tarball was built from the same sources of the same version, for this target, a NIF version that this VM has, and a glibc that
  is not newer than this system's. Otherwise it installs nothing, and says what is wrong. When the configuration changes,
  the next `mix compile` installs anew.

  The environment comes before the configuration, for a build that should be different once:

      $ NET_RUNNER_PRECOMPILED=/srv/packages/net_runner-….tar.gz NET_RUNNER_PRECOMPILED_SHA256=3c4f… mix compile
      $ NET_RUNNER_PRECOMPILED=false mix compile       # with cargo

  (An empty `NET_RUNNER_PRECOMPILED` means `false`.)

  Downloads go through the proxy that `https_proxy` or `http_proxy` names. With `https`, the server's certificate is checked with
  the system's. What has not arrived after 5 minutes is given up.

  `CARGO_BUILD_TARGET` names another target than that of this machine, both here and where the tarball is installed. A
  library for Linux needs a glibc as new as that of the system it was built on, so build on the oldest one that you
  want to serve.
  """

  use Mix.Task

  @impl true
  def run(args) do
    {options, rest} = OptionParser.parse!(args, strict: [output: :string])
    if rest != [], do: Mix.raise("mix net_runner.precompile takes no #{hd(rest)}, only --output")
    directory = Path.expand(options[:output] || ".")
    Mix.Task.rerun("compile.net_runner_native", ["--precompile", directory])
  end
end
