# A program that tries to get out, in rows (test/support/sandbox/attacks.ex). Each is first tried without a sandbox, where it succeeds.
for actor <- NetRunner.Sandbox.World.actors() do
  defmodule Module.concat(NetRunner.Guarantees.SandboxTest, Macro.camelize("#{actor}")) do
    use ExUnit.Case, async: true

    alias NetRunner.Guarantees.Tree
    alias NetRunner.Sandbox.{Attacks, World}

    @moduletag Tree.linux_only()
    @moduletag :capture_log
    @actor actor

    setup_all do
      {:ok, world: World.new(@actor)}
    end

    for row <- Attacks.rows() do
      @tag row: row.name
      test row.name, %{world: world, row: name} do
        row = Enum.find(Attacks.rows(), &(&1.name == name))

        # What root does to everybody would be taken for what another actor, at the same time, may not do.
        :global.trans({name, self()}, fn -> check(world, row) end, [node()])
      end
    end

    defp check(world, row) do
      if row.control, do: check_control(world, row)
      for sandbox <- row.refused_by, do: check_refused(world, row, sandbox)
      for sandbox <- row.passes, do: check_passes(world, row, sandbox)
    end

    # It succeeds without a sandbox, or there is a reason why it cannot.
    defp check_control(world, row) do
      {succeeded, output, reason} =
        with_fixture(world, row, fn ctx ->
          reason = row.impossible && row.impossible.(ctx)
          output = World.attack(ctx, row.args.(ctx), row.options)
          {row.succeeded.(output, ctx), output, reason}
        end)

      case reason do
        nil -> assert succeeded, "the control does not succeed: #{inspect(output)}"
        reason -> refute succeeded, "the control succeeds in spite of: #{reason}"
      end
    end

    defp check_refused(world, row, sandbox) do
      {succeeded, output} = try_in(world, row, sandbox)
      # The program has run, was refused something, and has gone on.
      refute output =~ "{", "in the sandbox #{sandbox}: #{output}"
      refute succeeded, "the sandbox #{sandbox} lets it: #{inspect(output)}"

      if sandbox == :basic and row.says != :any,
        do: assert(String.trim(output) in row.says)
    end

    # What the sandbox does not limit, or allows.
    defp check_passes(world, row, sandbox) do
      {succeeded, output} = try_in(world, row, sandbox)

      if world.actor.name == :root and not row.passes_as_root,
        do: assert(output == "EPERM\n"),
        else: assert(succeeded, "the sandbox #{sandbox} limits it: #{inspect(output)}")
    end

    defp try_in(world, row, sandbox) do
      with_fixture(world, row, fn ctx ->
        more = if row.sandbox, do: row.sandbox.(ctx), else: []
        allowed = World.sandbox(ctx, more, Attacks.sandbox(sandbox, ctx))
        output = World.attack(ctx, row.args.(ctx), [sandbox: allowed] ++ row.options)
        {row.succeeded.(output, ctx), output}
      end)
    end

    defp with_fixture(world, row, fun) do
      ctx = World.fixture(world, row.needs)

      try do
        if row.prepare, do: row.prepare.(ctx)
        fun.(ctx)
      after
        World.clear(ctx)
      end
    end
  end
end
