# The sandbox: what it says, and what is put on.
option = ["test/net_runner/sandbox_test.exs"]
attacks = ["test/guarantees/sandbox_test.exs"]
reuse = ["test/guarantees/sandbox_reuse_test.exs"]
policy = "lib/net_runner/sandbox/policy.ex"
sandbox = "native/shepherd/src/sandbox"

for {id, file, old, new, tests} <- [
      {"what_is_read_is_not_executed", policy,
       "paths(:executable, read) ++ paths(:writable, write)",
       "paths(:readable, read) ++ paths(:writable, write)", option},
      {"a_preset_has_to_be_there", policy, "do: {access, :optional, path}",
       "do: {access, :required, path}", option},
      {"a_given_up_network_is_none", policy, "if :network in given_up, do: :all,",
       "if :network in given_up, do: :none,", option},
      {"a_path_of_the_shepherds_own_process", policy, "name in [\"self\", \"thread-self\"]",
       "name in [\"self\"]", option},
      {"a_ruleset_lies_on_a_descriptor_of_the_command", "#{sandbox}/landlock.rs",
       "sys::copy_to_at_least(&fd, lowest)", "sys::copy_to_at_least(&fd, lowest * 0)", option},
      {"what_is_adopted_in_a_namespace_gets_no_stop_signal", "native/shepherd/src/shepherd.rs",
       "tree::signal_below(init.pid, number);", "tree::signal_below(init.pid, number * 0);",
       option},
      {"what_is_read_in_a_private_tmp_is_written", "#{sandbox}/namespaces.rs",
       "READ_ONLY | NO_SET_ID | NO_DEVICES", "NO_SET_ID | NO_DEVICES", option},
      {"mounts_reach_the_host", "#{sandbox}/namespaces.rs", "libc::MS_REC | libc::MS_PRIVATE",
       "libc::MS_REC | libc::MS_SHARED", attacks},
      {"the_way_up_leads_out_by_magic_links", "#{sandbox}/paths.rs",
       "open(path, RESOLVE_NO_MAGICLINKS)", "open(path, RESOLVE_NO_MAGICLINKS * 0)", option},
      {"abstract_sockets_lead_out", "#{sandbox}/landlock.rs", "const SCOPES: u64 = 3;",
       "const SCOPES: u64 = 2;", attacks},
      {"signals_lead_out", "#{sandbox}/landlock.rs", "const SCOPES: u64 = 3;",
       "const SCOPES: u64 = 1;", attacks},
      {"capabilities_stay", "native/shepherd/src/sandbox.rs", "capabilities: asked.capabilities,",
       "capabilities: asked.capabilities && false,", attacks},
      {"the_upper_half_of_an_argument_counts", "#{sandbox}/filter.rs",
       "instruction(LOAD, ARGUMENTS + 8 * condition.argument)",
       "instruction(LOAD, ARGUMENTS + 4 + 8 * condition.argument)", attacks},
      {"what_makes_namespaces_is_never_refused", "native/shepherd/src/sandbox.rs",
       "Some(Program::of_namespaces().map_err(&refused)?)", "None", attacks},
      {"any_idle_shepherd_will_do", "native/net_runner/src/idle.rs", "*own == confinement",
       "*own == confinement || true", reuse},
      {"a_user_namespace_keeps_the_bounding_set", "native/shepherd/src/sandbox.rs",
       "(confinement.is_none() || has_user)", "confinement.is_none()", attacks},
      {"a_kept_ruleset_is_for_other_paths", "#{sandbox}/landlock.rs",
       "kept.asked == key(sandbox) && ", "", reuse},
      {"a_kept_ruleset_knows_no_other_file", "#{sandbox}/landlock.rs",
       "(Ok(found), Some(_)) => found.identity == *before,", "(Ok(_), Some(_)) => true,", reuse},
      {"a_kept_ruleset_knows_no_other_mount", "#{sandbox}/paths.rs", "mount: found.mount,",
       "mount: 0,", reuse},
      {"a_kept_ruleset_holds_deleted_files", "#{sandbox}/landlock.rs",
       "!allowed.required || found.kind == libc::S_IFDIR", "true", reuse},
      {"a_kept_ruleset_trusts_every_file_system", "#{sandbox}/paths.rs",
       "LASTING.contains(&file_system(fd))", "true", reuse},
      {"a_kept_ruleset_trusts_files_with_several_names", "#{sandbox}/paths.rs",
       "|| found.links == 1;", "|| true;", ["native/shepherd"]},
      {"a_kept_ruleset_mounts", "#{sandbox}/paths.rs", "path, libc::AT_NO_AUTOMOUNT", "path, 0",
       reuse}
    ] do
  %{id: id, file: file, old: old, new: new, tests: tests}
end
