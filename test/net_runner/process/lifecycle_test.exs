defmodule NetRunner.Process.LifecycleTest do
  use ExUnit.Case, async: true

  alias NetRunner.Process.{Exit, Lifecycle}

  @exit %Exit{how: {:exited, 0}, usage: {1, 2, 3}, at: 7}
  @verdicts [
    :timeout,
    {:max_output_exceeded, "x"},
    {:input_failed, {:throw, :ball, []}},
    {:read_failed, :eio}
  ]

  defp life(fields \\ []), do: struct!(%Lifecycle{os_pid: 42}, fields)

  # As of a server without telemetry handlers.
  defp event(life, event) do
    {life, effects} = Lifecycle.event(life, event)

    if :announce_end in effects do
      {life, more} = Lifecycle.event(life, :announced)
      {life, effects ++ more}
    else
      {life, effects}
    end
  end

  defp after_events(life, events) do
    Enum.reduce(events, {life, []}, fn event, {life, effects} ->
      {life, more} = event(life, event)
      {life, effects ++ more}
    end)
  end

  describe "a command that ends by itself" do
    test "has its status, and its shepherd serves the next one" do
      {life, effects} = event(life(), {:exited, @exit})

      assert effects == [
               {:release_control, :retire},
               :announce_end,
               {:answer, :exit, {:ok, 0}},
               {:tell_exit, 0},
               {:output, :gone}
             ]

      assert Lifecycle.result(life) == {:ok, 0}
      assert Lifecycle.verdict(life) == nil
      refute Lifecycle.alive?(life)
    end

    test "gets no verdict afterwards" do
      {over, _} = event(life(), {:exited, @exit})

      for verdict <- @verdicts do
        assert event(over, {:end, verdict, :stay}) == {over, []}
      end
    end

    test "is not stopped by a time that is over later" do
      stop = {:end, :timeout, {:stop, :normal}}

      for life <- [life(), life(cgroup?: true)] do
        {exited, _} = event(life, {:exited, @exit})
        assert event(exited, stop) == {exited, []}
      end
    end

    test "and leaves something behind, of which the output is awaited for the grace only" do
      life = life(leftovers: :leave, grace: 100)
      {over, effects} = event(life, {:exited, @exit})
      assert {:arm, :grace_over, 100} in effects
      assert {:output, :left_behind} in effects
      # Its shepherd holds what was left.
      assert {:release_control, :close} in effects
      assert event(over, :grace_over) == {over, [{:output, :lingering}]}
    end

    test "and leaves something behind, of which a process reads on" do
      {_, effects} = event(life(leftovers: :leave), {:exited, @exit})
      assert {:output, :left_behind} in effects
      refute Enum.any?(effects, &match?({:arm, _, _}, &1))
    end

    test "is over when its shepherd has left its cgroup, with what it reported before" do
      {life, effects} = event(life(cgroup?: true), {:exited, @exit})
      assert effects == [:shut_control]
      assert Lifecycle.result(life) == nil
      assert {^life, []} = event(life, {:end, :timeout, :stay})
      {life, effects} = event(life, {:shepherd_gone, 9})
      assert :remove_cgroup in effects
      # It has ended with its cgroup, and serves no other command.
      assert {:release_control, :close} in effects
      assert Lifecycle.exit(life) == @exit
    end

    test "does not wait for the cgroup of what may stay in it" do
      {life, effects} = event(life(cgroup?: true, leftovers: :leave), {:exited, @exit})

      assert Lifecycle.over?(life)
      assert :remove_cgroup in effects
    end
  end

  describe "a command that is told to end" do
    test "hears so before anything else, and only once" do
      for cause <- [:asked, :stopped | @verdicts] do
        {life, [first | _]} = event(life(), {:end, cause, :stay})
        assert first == :tell_end
        {_, effects} = event(life, {:end, :timeout, :stay})
        refute :tell_end in effects
      end
    end

    test "keeps the first reason" do
      {life, _} =
        after_events(life(), [{:end, :timeout, :stay}, {:end, {:read_failed, :eio}, :stay}])

      assert Lifecycle.verdict(life) == {:error, :timeout}
      {life, effects} = event(life, {:exited, @exit})
      assert Lifecycle.verdict(life) == {:error, :timeout}
      assert {:answer, :exit, {:ok, 0}} in effects
    end

    test "has the verdict that its callers get, or none" do
      for {cause, verdict} <- [
            asked: nil,
            stopped: nil,
            timeout: {:error, :timeout},
            read_failed: {:error, :eio}
          ] do
        cause = if cause == :read_failed, do: {:read_failed, :eio}, else: cause
        {life, _} = event(life(), {:end, cause, :stay})
        assert Lifecycle.verdict(life) == verdict
        {life, _} = event(life, {:exited, @exit})
        assert Lifecycle.verdict(life) == verdict
      end
    end

    test "with a verdict, has readers hear it" do
      {_, effects} = event(life(), {:end, :timeout, :stay})
      assert {:output, {:fail, {:error, :timeout}}} in effects
    end

    test "while its shepherd leaves its cgroup stops its server afterwards" do
      events = [{:exited, @exit}, {:end, :stopped, {:stop, :normal}}, {:shepherd_gone, 9}]
      {_, effects} = after_events(life(cgroup?: true), events)
      assert List.last(effects) == {:stop, :normal}
    end

    test "without a verdict, by stop, is not read any more; when asked, it is" do
      {_, effects} = event(life(), {:end, :stopped, :stay})
      assert {:output, :discard} in effects
      {asked, effects} = event(life(), {:end, :asked, :stay})
      refute Enum.any?(effects, &match?({:output, _}, &1))
      {_, effects} = event(asked, {:end, :stopped, {:stop, :normal}})
      assert effects == [{:output, :discard}]
    end

    test "with what it may leave behind: nobody waits for that" do
      life = life(leftovers: :leave, grace: 100)
      {_, effects} = after_events(life, [{:end, :timeout, :stay}, {:exited, @exit}])
      assert {:output, :gone} in effects
      refute Enum.any?(effects, &match?({:arm, _, _}, &1))
    end

    test "stops its server when it is over, with the first reason for that" do
      events = [{:end, :stopped, {:stop, :first}}, {:end, :stopped, {:stop, :second}}]
      {life, effects} = after_events(life(), events)
      refute Enum.any?(effects, &match?({:stop, _}, &1))
      {life, effects} = event(life, {:exited, @exit})
      assert List.last(effects) == {:stop, :first}
      {_, effects} = event(life, {:end, :stopped, {:stop, :normal}})
      assert effects == [{:stop, :normal}]
    end
  end

  describe "a command that the kernel does not let go" do
    test "is given up by whoever waits, and ended all the same" do
      life = life(give_up_after: 500)
      {life, effects} = event(life, {:end, :timeout, :stay})
      assert {:arm, :give_up, 500} in effects
      not_ended = {:error, {:not_ended, 42}}
      {life, effects} = event(life, :give_up)

      assert effects == [
               {:give_up_pipes, not_ended},
               :see_feeder_off,
               {:answer, :exit, not_ended},
               {:answer, :stop, not_ended},
               {:answer, :collect, not_ended}
             ]

      assert Lifecycle.result(life) == not_ended
      assert Lifecycle.alive?(life)
      {life, effects} = event(life, {:end, :stopped, {:stop, :normal}})
      assert effects == [{:answer, :stop, not_ended}]
      {life, effects} = event(life, {:exited, @exit})
      assert List.last(effects) == {:stop, :normal}
      assert Lifecycle.result(life) == {:ok, 0}
    end

    test "is given up when only its cgroup is left, and is not to be removed" do
      life = life(give_up_after: 1, cgroup?: true)
      {life, _} = after_events(life, [{:end, :stopped, {:stop, :normal}}, {:exited, @exit}])
      {life, effects} = event(life, :give_up)
      assert :see_feeder_off in effects
      assert {:answer, :stop, {:error, {:not_ended, 42}}} in effects
      {_, effects} = event(life, {:shepherd_gone, 9})
      assert List.last(effects) == {:stop, :normal}
    end

    test "is not given up when nobody has set a time, or it has exited" do
      {_, effects} = event(life(), {:end, :timeout, :stay})
      refute Enum.any?(effects, &match?({:arm, _, _}, &1))

      {over, _} =
        after_events(life(give_up_after: 1), [{:end, :timeout, :stay}, {:exited, @exit}])

      assert event(over, :give_up) == {over, []}
    end
  end

  describe "a command whose end is announced" do
    setup do
      {life, effects} = Lifecycle.event(life(), {:exited, @exit})
      assert effects == [{:release_control, :retire}, :announce_end]
      %{life: life}
    end

    test "is over, and nobody is told before that is done", %{life: life} do
      assert Lifecycle.over?(life)
      refute Lifecycle.alive?(life)
      assert Lifecycle.exit(life) == @exit
      assert {Lifecycle.result(life), Lifecycle.told(life)} == {nil, nil}
      {over, effects} = Lifecycle.event(life, :announced)
      assert effects == [{:answer, :exit, {:ok, 0}}, {:tell_exit, 0}, {:output, :gone}]
      assert {Lifecycle.result(over), Lifecycle.told(over)} == {{:ok, 0}, 0}
    end

    test "is announced once", %{life: life} do
      {over, _} = Lifecycle.event(life, :announced)

      for life <- [life(), over] do
        assert Lifecycle.event(life, :announced) == {life, []}
      end

      assert Lifecycle.event(life, {:shepherd_gone, 9}) == {life, []}
    end

    test "gets no verdict, and is not stopped by a time that is over", %{life: life} do
      for verdict <- @verdicts do
        {life, []} = Lifecycle.event(life, {:end, verdict, :stay})
        assert Lifecycle.verdict(life) == nil
      end

      assert Lifecycle.event(life, {:end, :timeout, {:stop, :normal}}) == {life, []}
      assert Lifecycle.event(life, :give_up) == {life, []}
    end

    test "is stopped afterwards", %{life: life} do
      {life, []} = Lifecycle.event(life, {:end, :stopped, {:stop, :first}})
      {life, []} = Lifecycle.event(life, {:end, :stopped, {:stop, :second}})
      {_, effects} = Lifecycle.event(life, :announced)
      assert List.last(effects) == {:stop, :first}
    end

    test "is not waited for when its owner is dead, but told", %{life: life} do
      {life, effects} = Lifecycle.event(life, {:end, :closed, {:stop, :normal}})
      assert [{:answer, :exit, {:ok, 0}}, {:tell_exit, 0} | _] = effects
      assert List.last(effects) == {:stop, :normal}
      assert Lifecycle.result(life) == {:ok, 0}
    end
  end

  test "a shepherd that dies takes what it knew along" do
    {life, effects} = event(life(), {:shepherd_gone, 9})
    assert Lifecycle.exit(life) == {:lost, 9}
    assert {:answer, :exit, {:error, :shepherd_died}} in effects
    assert {:release_control, :close} in effects
    # The guard ends what it held; only the end of the pipe says when.
    assert {:output, :left_behind} in effects
  end

  # Any order of events, against what always holds. As the server does, nothing is told of a life after the server
  # was stopped, and timers fire only when they were armed.
  describe "random orders of events" do
    @rounds 2_000

    test "keep what always holds" do
      seed = {:exsss, {:rand.uniform(1_000_000), 2, 3}}
      state = :rand.seed_s(elem(seed, 0), elem(seed, 1))

      Enum.reduce(1..@rounds, state, fn round, state ->
        {life, state} = random_life(state)
        {events, state} = random_events(state, 12)

        try do
          check(life, events)
        rescue
          error ->
            flunk(
              "round #{round} of seed #{inspect(seed)}: #{inspect(life)} #{inspect(events)}: " <>
                Exception.message(error)
            )
        end

        state
      end)
    end

    defp check(life, events) do
      result =
        Enum.reduce_while(events, %{life: life, effects: [], armed: [], waiting: []}, fn event,
                                                                                         run ->
          cond do
            # Who waits, waits for an answer.
            match?({:wait, _}, event) ->
              {:cont, wait(run, elem(event, 1))}

            event in [:announced, :give_up, :grace_over] and event not in run.armed ->
              {:cont, run}

            true ->
              {life, effects} = Lifecycle.event(run.life, event)
              consistent(run, life, event, effects)
              armed = (run.armed -- [event]) ++ for({:arm, timer, _} <- effects, do: timer)
              armed = if :announce_end in effects, do: [:announced | armed], else: armed
              answered = for {:answer, who, _} <- effects, do: who

              run = %{
                run
                | life: life,
                  effects: run.effects ++ effects,
                  armed: armed,
                  waiting: Enum.reject(run.waiting, &(&1 in answered))
              }

              if Enum.any?(effects, &match?({:stop, _}, &1)), do: {:halt, run}, else: {:cont, run}
          end
        end)

      once(result.effects)
      if Lifecycle.told(result.life), do: assert(:exit not in result.waiting)
    end

    defp wait(run, :exit) do
      if Lifecycle.result(run.life), do: run, else: %{run | waiting: [:exit | run.waiting]}
    end

    # The command is told to end before anything else is done about its end.
    defp consistent(%{life: %{phase: :running}}, _life, {:end, _, _}, effects) do
      assert hd(effects) == :tell_end
      assert Enum.count(effects, &(&1 == :tell_end)) == 1
    end

    defp consistent(run, life, event, effects) do
      refute :tell_end in effects

      if Lifecycle.over?(run.life) do
        assert Lifecycle.verdict(life) == Lifecycle.verdict(run.life)
        assert Lifecycle.exit(life) == Lifecycle.exit(run.life)
        told? = Lifecycle.told(life) != Lifecycle.told(run.life)
        allowed = [:answer, :stop, :output] ++ if(told?, do: [:tell_exit, :arm], else: [])
        assert Enum.all?(effects, &(elem(&1, 0) in allowed))
      end

      # Nobody is told of an end before it was announced.
      if Lifecycle.over?(life) and Lifecycle.told(life) == nil do
        refute Enum.any?(effects, &(is_tuple(&1) and elem(&1, 0) in [:answer, :tell_exit, :stop]))
      end

      if Lifecycle.verdict(run.life),
        do: assert(Lifecycle.verdict(life) == Lifecycle.verdict(run.life))

      if match?({:exited, _}, event) and Lifecycle.over?(life),
        do: refute(Lifecycle.alive?(life))
    end

    defp once(effects) do
      for effect <- [:tell_end, :shut_control, :announce_end, :remove_cgroup] do
        assert Enum.count(effects, &(&1 == effect)) <= 1
      end

      assert Enum.count(effects, &match?({:tell_exit, _}, &1)) <= 1

      assert Enum.count(effects, &match?({:release_control, _}, &1)) <= 1
      assert Enum.count(effects, &match?({:stop, _}, &1)) <= 1
    end

    defp random_life(state) do
      {leftovers, state} = pick([:kill, :leave], state)
      {cgroup?, state} = pick([true, false], state)
      {give_up_after, state} = pick([:infinity, 10], state)
      {grace, state} = pick([:none, 10], state)

      {life(leftovers: leftovers, cgroup?: cgroup?, give_up_after: give_up_after, grace: grace),
       state}
    end

    # The shepherd reports one exit, and then only that it is gone.
    defp random_events(state, count) do
      Enum.map_reduce(1..count, {state, []}, fn _, {state, said} ->
        {event, state} = random_event(state)

        case event do
          {:exited, _} when said != [] -> {{:wait, :exit}, {state, said}}
          {:exited, _} -> {event, {state, [:exited]}}
          {:shepherd_gone, _} -> {event, {state, [:gone]}}
          event -> {event, {state, said}}
        end
      end)
      |> then(fn {events, {state, _}} -> {events, state} end)
    end

    defp random_event(state) do
      {cause, state} = pick([:asked, :stopped | @verdicts], state)
      {next, state} = pick([:stay, :stay, {:stop, :normal}], state)

      pick(
        [
          {:end, cause, next},
          {:end, cause, next},
          {:exited, @exit},
          {:shepherd_gone, 9},
          :announced,
          :announced,
          :give_up,
          :grace_over,
          {:wait, :exit}
        ],
        state
      )
    end

    defp pick(list, state) do
      {index, state} = :rand.uniform_s(length(list), state)
      {Enum.at(list, index - 1), state}
    end
  end
end
