# Those that the suite once did not notice (Elixir).
callers = ["test/net_runner/process/callers_test.exs"]
stream = ["test/net_runner/run/stream_test.exs"]
server = "lib/net_runner/process/server.ex"

[
  %{
    id: "shepherd_with_leftovers_kept_as_idle",
    file: server,
    old: "exit != :lost and state.leftovers == :kill and state.cgroup == nil",
    new: "exit != :lost and state.cgroup == nil",
    tests: ["test/guarantees/reuse_test.exs"]
  },
  %{
    id: "hand_over_keeps_the_old_owner",
    file: server,
    old: """
        if state.owner, do: Process.demonitor(state.owner, [:flush])
        {:reply, :ok, %{state | enumerated?: true, owner: Process.monitor(owner)}}
    """,
    new: """
        _ = owner
        {:reply, :ok, %{state | enumerated?: true}}
    """,
    tests: stream
  },
  %{
    id: "killed_feeder_is_swallowed",
    file: server,
    old: "      :normal -> noreply(state)\n      {:input_failed",
    new: "      reason when reason in [:normal, :killed] -> noreply(state)\n      {:input_failed",
    tests: stream
  },
  %{
    id: "parked_write_hangs_after_the_exit",
    file: server,
    old: "{:error, :eagain} when state.exit == nil or state.leftovers == :leave ->",
    new: "{:error, :eagain} when state.leftovers in [:kill, :leave] ->",
    tests: callers
  },
  %{
    id: "exit_does_not_look_at_writers",
    file: server,
    old: "    state |> serve_readers() |> serve(:stdin)\n  end",
    new: "    state |> serve_readers()\n  end",
    tests: callers
  },
  %{
    id: "dead_callers_read_is_served",
    file: server,
    old: "if gone?(from) or Operations.any?(state.operations, competing(stream)) do",
    new: "if Operations.any?(state.operations, competing(stream)) do",
    tests: callers
  },
  %{
    id: "dead_callers_read_any_is_served",
    file: server,
    old: "    if gone?(from) or\n         Operations.any?",
    new: "    if Operations.any?",
    tests: callers
  },
  %{
    id: "dead_collect_is_not_noticed",
    file: server,
    old: "{%{kind: :collect}, _} -> {:stop, :normal, state}",
    new: "{%{kind: :collecting}, _} -> {:stop, :normal, state}",
    tests: callers
  },
  %{
    id: "read_any_overtakes_a_reader",
    file: server,
    old: "streams = Enum.filter([:stdout, :stderr], first?)",
    new: "_ = first?\n    streams = [:stdout, :stderr]",
    tests: callers
  },
  %{
    id: "no_demonitor_after_an_answer",
    file: server,
    old:
      "  defp reply(%{from: from, monitor: monitor}, result) do\n    Process.demonitor(monitor, [:flush])\n",
    new: "  defp reply(%{from: from, monitor: _}, result) do\n",
    tests: callers
  },
  %{
    id: "partial_first_write_is_not_counted",
    file: server,
    old: "{:noreply, state |> count_written(iovec, rest) |> park(:stdin, from, {:begun, rest})}",
    new: "{:noreply, state |> park(:stdin, from, {:begun, rest})}",
    tests: callers
  },
  %{
    id: "partial_later_write_is_not_counted",
    file: server,
    old: "        state = count_written(state, iovec, rest)\n",
    new: "",
    tests: callers
  },
  %{
    id: "hung_callback_process_is_left",
    file: "lib/net_runner/daemon.ex",
    old: "        Process.exit(output, :kill)\n",
    new: "",
    tests: ["test/net_runner/daemon_test.exs"]
  },
  %{
    id: "waiting_for_room_is_not_released",
    file: "lib/net_runner/system/launcher.ex",
    old: "    release_waiting(%{state | socket: nil, guard: nil})",
    new: "    %{state | socket: nil, guard: nil}",
    tests: ["test/net_runner/system/launcher_test.exs"]
  },
  %{
    id: "owner_that_dies_during_a_slow_start_is_missed",
    file: server,
    old: "          {:DOWN, ^owner, :process, _, _} -> {:error, :closed}\n",
    new: "",
    tests: ["test/net_runner/system/launcher_test.exs"]
  }
]
