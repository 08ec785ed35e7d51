# Queues, lines, options, specs, cgroups, errors, signals, the launcher.
operations = ["test/net_runner/process/operations_test.exs"]
lines = ["test/net_runner/run/lines_test.exs"]
cmd = ["test/net_runner/run/cmd_test.exs"]
spec = ["test/net_runner/bad_input_test.exs", "test/net_runner_test.exs"]
cgroup = ["test/net_runner/system/cgroup_test.exs"]
error = ["test/net_runner/error_test.exs"]
telemetry = ["test/net_runner/telemetry_test.exs"]
registry = ["test/net_runner/registry_test.exs"]
options = ["test/net_runner/options_test.exs", "test/net_runner/bad_input_test.exs"]
signal = ["test/net_runner/signal_test.exs"]
launcher = ["test/net_runner/system/launcher_test.exs"]
stop = ["test/guarantees/application_stop_test.exs"]

for {file, mutants} <- [
      {"process/operations",
       [
         {"the_last_of_several_queues_is_next", "when id < other, do: first",
          "when id > other, do: first", operations},
         {"an_answered_caller_is_known",
          "queues: queues, callers: Map.delete(operations.callers, monitor)}",
          "queues: queues, callers: (_ = monitor; operations.callers)}", operations},
         {"those_taken_are_known",
          "callers = Map.drop(operations.callers, Enum.map(taken, & &1.monitor))",
          "callers = operations.callers", operations},
         {"a_begun_write_goes_with_its_caller",
          "%Operation{data: {:begun, _, _}} = operation) do",
          "%Operation{data: {:never, _, _}} = operation) do", operations},
         {"an_empty_queue_is_kept", "if :gb_trees.is_empty(queue),",
          "if :gb_trees.is_empty(queue) and id < 0,", operations},
         {"an_update_is_lost", "replace(operations, %{operation | data: data})",
          "replace(operations, if(data == nil, do: %{operation | data: data}, else: operation))",
          operations}
       ]},
      {"run/lines",
       [
         {"a_return_at_the_border_stays", "[without_return(last) | earlier]", "[last | earlier]",
          lines},
         {"any_return_at_the_border_goes", "chunk: <<?\\n, _::binary>>},",
          "chunk: <<_, _::binary>>},", lines},
         {"the_last_line_is_backwards", "IO.iodata_to_binary(Enum.reverse([held | pieces]))",
          "IO.iodata_to_binary([held | pieces])", lines},
         {"a_long_line_keeps_its_last_piece", "pieces: [rest | lines.pieces]", "pieces: [rest]",
          lines},
         {"a_piece_is_in_two_lines", "%{lines | pieces: [], chunk: rest}",
          "%{lines | chunk: rest}", lines}
       ]},
      {"run/cmd",
       [
         {"the_last_of_two_options_counts", "Keyword.put_new(settings.options, name, value)",
          "Keyword.put(settings.options, name, value)", cmd},
         {"an_empty_variable_is_set", "value in [nil, \"\"] -> {name, nil}",
          "value in [nil] -> {name, nil}", cmd},
         {"a_collectable_is_not_told_of_a_failure", "        collector.(collected, :halt)\n", "",
          cmd},
         {"a_collectable_is_not_told_of_the_end", "{collector.(collected, :done), status}",
          "{collected, status}", cmd},
         {"a_program_that_may_not_run_has_a_status",
          "      {{:ok, %{type: :regular}}, :eacces} ->\n        :erlang.error(:eacces)\n\n", "",
          cmd},
         {"stderr_is_hidden", "do: :redirect, else: :inherit", "do: :redirect, else: :disabled",
          cmd},
         {"no_lines", "do: %{settings | lines?: true}", "do: settings", cmd}
       ]},
      {"system/spec",
       [
         {"its_own_path_is_ignored", "Map.get(changes, \"PATH\", path) || @default_path",
          "path || @default_path", spec},
         {"no_path_no_search", "Map.get(changes, \"PATH\", path) || @default_path",
          "Map.get(changes, \"PATH\", path) || \"/nowhere\"", spec},
         {"a_nul_in_an_argument", "Enum.find_index(args, &nul?/1)",
          "Enum.find_index(args, &(&1 == <<0>>))", spec},
         {"a_group_beside_a_user_is_ignored", "group(options.group || gid)", "group(gid)", spec},
         {"the_groups_of_the_vm_stay", "do: {:ok, [{:groups, default}]}",
          "do: {:ok, if(default == :never, do: [{:groups, default}], else: [])}",
          ["test/net_runner/system/spec_test.exs"]},
         {"no_limit_is_zero", "defp limit(:infinity), do: @unlimited",
          "defp limit(:infinity), do: @unlimited - @unlimited",
          ["test/net_runner/process/options_test.exs"]},
         {"arg0_is_ignored", "if(options.arg0, do: [options.arg0 | args], else: command)",
          "if(options.arg0 == :never, do: [options.arg0 | args], else: command)", spec},
         {"a_cleared_environment_is_not", "if clear?, do: {\"\", nil}",
          "if clear? == nil, do: {\"\", nil}", spec},
         {"a_variable_is_not_unset", "Native.environment(:os.env(), Map.keys(changes))",
          "Native.environment(:os.env(), for({name, value} <- changes, value != nil, do: name))",
          spec}
       ]},
      {"system/cgroup",
       [
         {"a_cgroup_of_others_is_taken", "      {:error, :eexist} ->\n        failure",
          "      {:error, :eexist} ->\n        if(File.dir?(directory), do: :ok) || failure",
          cgroup},
         {"a_path_leads_up", "Enum.any?(parts, &(&1 in [\".\", \"..\"]))",
          "Enum.any?(parts, &(&1 in [\".\"]))", cgroup},
         {"an_absolute_path", "Path.type(path) != :relative ->", "Path.type(path) == :never ->",
          cgroup},
         {"a_missing_controller_is_not_told",
          "failure(\"the controller \#{inspect(controller)} is not available in \#{directory}\")",
          "_ = directory\n        :ok", cgroup},
         {"no_weight_is_one", "do: weight in 1..10_000", "do: weight in 0..10_000", options},
         {"a_quota_below_the_kernels", "quota >= 1_000)", "quota >= 1)", options}
       ]},
      {"error",
       [
         {"a_core_is_not_told", "if(core? == true, do: [\"core dumped\"]",
          "if(core? == nil, do: [\"core dumped\"]", error},
         {"a_status_is_a_signal", "{{:ok, name}, nil} -> \"was ended by",
          "{{:ok, name}, _} -> \"was ended by", error},
         {"stderr_that_is_no_text", "bytes |> Text.legible() |> String.trim()",
          "String.trim(bytes)", error},
         {"a_word_that_a_terminal_obeys",
          "String.printable?(word) and Text.legible(word) == word", "String.printable?(word)",
          error},
         {"the_beginning_of_stderr_is_its_end", "text when dropped in [0, nil] ->",
          "text when dropped != :never ->", ["test/net_runner/result_test.exs"]},
         {"a_quote_in_a_word", "String.replace(word, \"'\", \"'\\\\''\")", "word", error},
         {"a_word_without_end", "shortened(@longest_word)", "shortened(@longest_command)", error}
       ]},
      {"process/boot",
       [
         {"limits_without_a_path", "cgroups(%{cgroup_path: nil, cgroup: []})",
          "cgroups(%{cgroup_path: nil, cgroup: _})", cgroup}
       ]},
      {"registry",
       [
         {"an_entry_outlives_its_process", "do: :ets.match_delete(@table, {key, pid, :_})",
          "do: key", registry},
         {"all_entries_of_a_key_go_with_one_process", "{key, pid, :_})", "{key, :_, :_})",
          registry},
         {"an_entry_of_the_dead_is_shown",
          "for {_key, pid, value} <- :ets.lookup(@table, key), Process.alive?(pid), do: value",
          "for {_key, _pid, value} <- :ets.lookup(@table, key), do: value", registry},
         {"a_restart_leaves_entries", "if Process.whereis(__MODULE__) == registry do",
          "if is_pid(registry) do", registry},
         {"the_dead_are_listed",
          "for {pid, _value} = entry <- entries, Process.alive?(pid), do: entry", "entries",
          registry},
         {"who_has_an_entry_outlives_the_application", "    Process.link(registry)\n",
          "    true = is_pid(registry) || raise ArgumentError\n",
          registry ++ ["test/net_runner/system/launcher_test.exs"]}
       ]},
      {"options",
       [
         {"the_last_value_counts", "given() |> Enum.uniq_by(fn {name, _} -> name end)", "given()",
          options},
         {"what_excludes_what_is_not_looked_at",
          "if given != [], do: Combination.check!(given, groups, captured?(groups))",
          "if given == [], do: Combination.check!(given, groups, captured?(groups))", options}
       ]},
      {"options/name",
       [
         {"any_option_for_any_function", "&(&1 in groups)) do", "&(&1 != nil)) do", options}
       ]},
      {"options/value",
       [
         {"the_id_that_means_no_change", "value in 0..0xFFFF_FFFE\n", "value in 0..0xFFFF_FFFF\n",
          options},
         {"a_soft_limit_above_the_hard", "number?(hard) and soft <= hard", "number?(hard)",
          options},
         {"a_timeout_that_no_timer_takes", "value >= 0 and value < 0x1_0000_0000",
          "value >= 0 and value < 0x2_0000_0000", options},
         {"a_nul_in_a_path", "is_binary(value) and :binary.match(value, <<0>>) == :nomatch",
          "is_binary(value) and :binary.match(value, <<0>>) != :never", options}
       ]},
      {"process/announcer",
       [
         {"nobody_hears_of_a_killed_process",
          "Telemetry.finish(span, {:exception, :exit, reason})", "reason && :ok", telemetry},
         {"an_owner_that_dies_during_a_start", "        send(self(), news)\n",
          "        _ = news\n", telemetry},
         {"a_handler_of_the_start_that_hangs_keeps_its_caller", "min(timeout, @patience)",
          "(_ = @patience; timeout)", telemetry},
         {"a_handler_of_a_failed_start_that_hangs_keeps_its_caller", "wanted_by, @patience)",
          "wanted_by, :infinity)", telemetry},
         {"a_handler_that_asks_delays_the_start", "{:\"$gen_call\", {^announcer, _}, _} = call",
          "{:\"$never\", {^announcer, _}, _} = call", telemetry},
         {"an_upgrade_loses_the_event_of_the_end",
          ":erlang.hibernate(__MODULE__, :announce, [span, server])", "announce(span, server)",
          telemetry}
       ]},
      {"command",
       [
         {"a_command_made_by_hand_is_not_checked",
          "for {name, _} <- options, do: Options.Name.known!(name, @groups)\n", "",
          ["test/net_runner/command_test.exs"]}
       ]},
      {"log",
       [
         {"a_log_handler_holds_up_who_logs", "spawn(__MODULE__, :log, ",
          "apply(__MODULE__, :log, ", ["test/net_runner/daemon/alone_test.exs"]}
       ]},
      {"daemon",
       [
         {"a_start_that_fails_is_logged_too_late", "do: Log.write_and_wait(", "do: Log.write(",
          ["test/net_runner/daemon_test.exs"]},
         {"the_log_of_a_crash_has_the_last_words_by_chance", "with_last_words(state)}\n",
          "state}\n", ["test/net_runner/daemon/options_test.exs"]},
         {"what_is_hidden_does_not_outlive_an_upgrade", "Options.Hidden.new(value)",
          "(&Enumerable.reduce(value, &1, &2))", ["test/net_runner/honoured_test.exs"]}
       ]},
      {"daemon/output",
       [
         {"a_slow_function_loses_the_last_output",
          "progress -> go_on(%{output | progress_before: progress})",
          "_progress -> go_on(%{output | ahead?: true, stuck?: true})",
          ["test/net_runner/daemon/options_test.exs"]},
         {"nobody_hears_what_was_given_up", "do: byte_size(bytes)) + output.dropped do",
          "do: 0 * byte_size(bytes)) + output.dropped do",
          ["test/net_runner/daemon/options_test.exs"]}
       ]},
      {"daemon/handler",
       [
         {"a_line_that_has_begun_is_lost_in_an_upgrade",
          "send(output, {self(), :done})\n        :erlang.hibernate(__MODULE__, :loop, [handler])",
          "send(output, {self(), :done})\n        loop(handler)",
          ["test/guarantees/upgrade_test.exs"]}
       ]},
      {"signal",
       [
         {"the_signals_of_the_c_library", "do: 34..64, else: 65..126",
          "do: 32..64, else: 65..126", signal},
         {"the_middle_is_named_from_above", "above <= below}", "above < below}", signal},
         {"numbers_that_are_no_signals", "when number in 1..31 or number in @real_time",
          "when number in 0..31 or number in @real_time", signal}
       ]},
      {"process/context",
       [
         {"handlers_print_elsewhere", "    Process.group_leader(self(), context.group_leader)\n",
          "", telemetry}
       ]},
      {"process/shutdown",
       [
         {"the_application_waits_for_no_command", "told_at + may_take + @margin",
          "told_at + may_take + @margin - 3_600_000", stop},
         {"the_application_waits_for_ever", "|> max(0) |> min(@longest_wait)",
          "|> max(@longest_wait)", ["test/guarantees/dead_file_system_test.exs"]},
         {"the_application_ends_no_command", "send(server, :application_stops)", "server", stop}
       ]},
      {"system/launcher",
       [
         {"commands_start_while_the_application_stops",
          "    :ets.insert(@table, {:closed, true})\n", "", stop},
         {"who_waits_for_room_is_left", "release_waiting(%{state | socket: nil, guard: nil})",
          "%{state | socket: nil, guard: nil}", launcher},
         {"a_dead_launcher_is_not_noticed",
          "{:select, socket, _, :ready_input}, %{socket: socket} = state) do",
          "{:select, socket, _, :ready_input}, %{socket: socket} = state) when socket == nil do",
          launcher},
         {"a_launcher_of_another_version", "_ -> {:error, {:mismatch, theirs, ours}}",
          "_ -> if(theirs == ours, do: {:error, {:mismatch, theirs, ours}}, else: {:ok, \"\"})",
          launcher},
         {"it_does_not_try_again", "retry_later(state)\n    end\n  end", "state\n    end\n  end",
          launcher},
         {"an_old_socket_is_replaced",
          "def handle_cast({{:replace, socket}, who}, %{socket: socket} = state) do",
          "def handle_cast({{:replace, _socket}, who}, %{socket: socket} = state) when socket != nil do",
          launcher}
       ]}
    ],
    {id, old, new, tests} <- mutants do
  %{id: id, file: "lib/net_runner/#{file}.ex", old: old, new: new, tests: tests, limit: 180}
end
