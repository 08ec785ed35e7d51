# Beside this file, and not in lib/: the compiler step has to be there before anything in lib/ is compiled.
Code.require_file("mix/precompiled.exs", __DIR__)
Code.require_file("mix/compile_native.exs", __DIR__)

defmodule NetRunner.MixProject do
  use Mix.Project

  @version "0.1.0"

  # Where this is published; CONTRIBUTING.md says when to set it. `nil`: the pages link to no sources.
  @source_url nil

  # After the callback of Mix.Project, which makes this the current project.
  @after_compile {Mix.Tasks.Compile.NetRunnerNative, :notice_change}

  def project do
    [
      app: :net_runner,
      version: @version,
      elixir: "~> 1.14",
      name: "NetRunner",
      description:
        "Runs operating-system commands with backpressure, sandboxes and limits, and leaves nothing running",
      source_url: @source_url,
      compilers: [:net_runner_native | Mix.compilers()],
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      test_ignore_filters: [&String.starts_with?(&1, ["test/mutants/", "test/soak/"])],
      package: package(),
      docs: docs(),
      deps: deps(Mix.env())
    ]
  end

  def application do
    [mod: {NetRunner.Application, []}, extra_applications: [:logger]]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  # In an environment of its own, so that nobody needs Hex to compile or test: `MIX_ENV=docs mix docs`.
  defp deps(:docs), do: [{:ex_doc, "~> 0.34", only: :docs, runtime: false}]
  defp deps(_), do: []

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: if(@source_url, do: %{"Source" => @source_url}, else: %{}),
      files: ~w(lib native mix Cargo.toml Cargo.lock mix.exs .formatter.exs docs examples
          README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE)
    ]
  end

  # --- ExDoc; bin/docs reads these lists, too ---------------------------------------------------------

  defp docs do
    [
      main: "readme",
      source_ref: "v#{@version}",
      extras:
        for({_group, pages} <- pages(), page <- pages, do: {String.to_atom(page), extra(page)}),
      groups_for_extras: pages(),
      groups_for_modules: modules(),
      assets: assets(),
      skip_undefined_reference_warnings_on: ["CHANGELOG.md", "docs/internals.md"],
      before_closing_body_tag: &diagrams/1
    ]
  end

  defp pages do
    [
      "First steps":
        ~w(README.md docs/getting_started.md docs/recipes.md docs/your_tests.md examples/tour.livemd),
      "Commands and data":
        ~w(docs/input_output.md docs/streams.md docs/backpressure.md docs/errors.md docs/commands.md
          docs/processes.md docs/pipelines.md docs/terminals.md),
      "Ending, services, nodes":
        ~w(docs/ending.md docs/guarantees.md docs/daemons.md docs/nodes.md),
      "Commands that you do not trust":
        ~w(docs/untrusted.md docs/sandbox.md docs/cgroups.md docs/security.md),
      "When it surprises": ~w(docs/gotchas.md docs/troubleshooting.md docs/performance.md),
      "Moving here": ~w(docs/migrating.md docs/from_c_library.md),
      "The project":
        ~w(CHANGELOG.md CONTRIBUTING.md SECURITY.md docs/internals.md docs/testing.md LICENSE)
    ]
  end

  # Else its name would be that of docs/security.md.
  defp extra("SECURITY.md"), do: [filename: "reporting", title: "Reporting a vulnerability"]
  defp extra(_page), do: []

  # What is not named here (a command and its life) comes first, without a title.
  defp modules do
    [
      "A command as a value": [NetRunner.Command, NetRunner.Options, NetRunner.Signal],
      "A running command": [NetRunner.Process, NetRunner.Process.Stats],
      "Results and errors": [NetRunner.Result, NetRunner.Error],
      "Under a supervisor": [NetRunner.Daemon],
      "On this machine": [
        NetRunner.Sandbox,
        NetRunner.Doctor,
        NetRunner.Doctor.Finding,
        NetRunner.Telemetry
      ]
    ]
  end

  # What `bin/docs` has put there draws ```mermaid blocks. Without it they stay text.
  @mermaid "_build/docs/mermaid"

  defp assets do
    # One folder by two names, for the links of the pages and of README.md.
    pictures = %{"docs/plots" => "plots", "docs/plots/." => "docs/plots"}
    if File.dir?(@mermaid), do: Map.put(pictures, @mermaid, "mermaid"), else: pictures
  end

  defp diagrams(:html) do
    """
    <script defer src="mermaid/mermaid.min.js"></script>
    <script>
      window.addEventListener("exdoc:loaded", () => {
        if (!window.mermaid) return;
        for (const code of document.querySelectorAll("pre code.mermaid")) {
          const diagram = document.createElement("pre");
          diagram.className = "mermaid";
          diagram.textContent = code.textContent;
          code.parentElement.replaceWith(diagram);
        }
        mermaid.run({querySelector: "pre.mermaid"});
      });
    </script>
    """
  end

  defp diagrams(_format), do: ""
end
