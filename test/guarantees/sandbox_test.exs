# A program that tries to get out, in rows (test/support/sandbox/attacks.ex). Each is first tried without a sandbox, where it succeeds.
for actor <- NetRunner.Sandbox.World.actors() do
  defmodule Module.concat(NetRunner.Guarantees.SandboxTest, Macro.camelize("#{actor}")) do
    use ExUnit.Case, async: true

    alias NetRunner.Guarantees.Tree
    alias NetRunner.Sandbox.{Attacks, World}

    @moduletag skip: Tree.needs_linux()
    @moduletag :capture_log
    @actor actor

    setup_all do
      {:ok, world: World.new(@actor)}
    end

    for row <- Attacks.rows() do
      @tag row: row.name
      test row.name, %{world: world, row: name} do
        row = Enum.find(Attacks.rows(), &(&1.name == name))
        check_control(world, row)

        unless System.get_env("CONTROLS"),
          do:
            for(
              sandbox <- row.refused_by ++ row.passes,
              System.get_env("STEP1") == nil or sandbox in [:basic, :unix, :open],
              do: check(world, row, sandbox)
            )
      end
    end

    # The attack succeeds without a sandbox, or there is a reason why it cannot.
    defp check_control(world, row) do
      {succeeded, output, reason} = try_without(world, row)

      case reason do
        nil -> assert succeeded, "the control does not succeed: #{inspect(output)}"
        reason -> refute succeeded, "the control succeeds in spite of: #{reason}"
      end
    end

    defp check(world, row, name) do
      {succeeded, output} = try_in(world, row, name)

      if name in row.passes do
        assert succeeded, "not limited by the sandbox #{name}, and yet: #{inspect(output)}"
      else
        refute succeeded, "the sandbox #{name} lets it: #{inspect(output)}"
        # The program has run, and goes on.
        refute output =~ "{", "the sandbox #{name}: #{output}"
        if name == :basic and is_list(row.says), do: assert(String.trim(output) in row.says)
      end
    end

    defp try_without(world, row) do
      with_fixture(world, row, fn ctx ->
        reason = row.impossible && row.impossible.(ctx)
        output = World.attack(ctx, row.args.(ctx), row.options)
        {row.succeeded.(output, ctx), output, reason}
      end)
    end

    defp try_in(world, row, name) do
      with_fixture(world, row, fn ctx ->
        more = if row.sandbox, do: row.sandbox.(ctx), else: []
        allowed = World.sandbox(ctx, more, Attacks.sandbox(name, ctx))
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
