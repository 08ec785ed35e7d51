//! What holds for the wire format, whatever the bytes: nothing panics, and what is decoded is what is sent again.

use wire::{Access, Confinement, Event, Request, Sandbox, Spec, SpecWriter, Stdio, Tag};

/// From the shepherd.
pub fn event(bytes: &[u8]) {
    if let Ok(event) = Event::decode(bytes) {
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }
}

/// To the shepherd.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
}

/// To the shepherd, behind a request.
pub fn spec(bytes: &[u8]) {
    if let Ok(spec) = Spec::decode(bytes) {
        let again = encode(&spec);
        // The VM picks a shepherd by it, and the shepherd goes by the whole spec.
        let confinement = spec.sandbox.as_ref().and_then(Sandbox::confinement);
        assert_eq!(Confinement::of(bytes), confinement);
        assert_eq!(Spec::decode(&again), Ok(spec));
    }
}

fn encode(spec: &Spec) -> Vec<u8> {
    let mut writer = SpecWriter::default();
    let mut string = |tag, value: &std::ffi::CStr| writer.string(tag, value.to_bytes()).unwrap();
    string(Tag::File, spec.file);
    spec.args.iter().for_each(|arg| string(Tag::Arg, arg));
    spec.env.iter().for_each(|pair| string(Tag::Env, pair));
    spec.search_path
        .iter()
        .for_each(|path| string(Tag::SearchPath, path));
    spec.cd.iter().for_each(|path| string(Tag::Cd, path));
    spec.cgroup
        .iter()
        .for_each(|path| string(Tag::Cgroup, path));
    spec.joined_cgroup
        .iter()
        .for_each(|path| string(Tag::JoinedCgroup, path));
    spec.stdio
        .iter()
        .for_each(|stdio| encode_stdio(stdio, &mut writer));
    for (number, stdio) in &spec.fds {
        writer.number(Tag::Fd, (*number).into());
        encode_stdio(stdio, &mut writer);
    }
    // Negative ones are refused; see `small` in spec.rs.
    writer.number(Tag::StopSignal, spec.stop_signal as u64);
    writer.number(Tag::KillTimeout, spec.kill_timeout_ms);
    writer.number(Tag::Leftovers, spec.leftovers.to_number());
    let mut number = |tag, value: Option<u64>| {
        value
            .into_iter()
            .for_each(|value| writer.number(tag, value))
    };
    number(Tag::Umask, spec.umask.map(u64::from));
    number(Tag::Nice, spec.nice.map(|nice| nice as i64 as u64));
    number(Tag::Uid, spec.uid.map(u64::from));
    number(Tag::Gid, spec.gid.map(u64::from));
    for limit in &spec.rlimits {
        writer.numbers(Tag::Rlimit, &[limit.resource, limit.soft, limit.hard]);
    }
    if let Some(groups) = &spec.groups {
        let groups: Vec<u64> = groups.iter().copied().map(u64::from).collect();
        writer.numbers(Tag::Groups, &groups);
    }
    if spec.no_new_privs {
        writer.flag(Tag::NoNewPrivs);
    }
    if spec.terminal {
        writer.flag(Tag::Terminal);
    }
    if let Some(sandbox) = &spec.sandbox {
        encode_sandbox(sandbox, &mut writer);
    }
    writer.finish()
}

fn encode_stdio(stdio: &Stdio, writer: &mut SpecWriter) {
    match stdio {
        Stdio::Null => writer.flag(Tag::Null),
        Stdio::Passed => writer.flag(Tag::Passed),
        Stdio::Redirected => writer.flag(Tag::Redirected),
        Stdio::Read(path) => writer.string(Tag::ReadFile, path.to_bytes()).unwrap(),
        Stdio::Write(path) => writer.string(Tag::WriteFile, path.to_bytes()).unwrap(),
        Stdio::Append(path) => writer.string(Tag::AppendFile, path.to_bytes()).unwrap(),
    }
}

fn encode_sandbox(sandbox: &Sandbox, writer: &mut SpecWriter) {
    let layers = [
        (sandbox.filesystem, Sandbox::FILESYSTEM),
        (sandbox.signals, Sandbox::SIGNALS),
        (sandbox.system_calls, Sandbox::SYSTEM_CALLS),
        (sandbox.capabilities, Sandbox::CAPABILITIES),
    ];
    let layers = layers
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, bit)| bit)
        .sum();
    writer.numbers(Tag::Sandbox, &[layers, sandbox.network.to_number()]);
    for allowed in &sandbox.paths {
        let tag = match (allowed.access, allowed.required) {
            (Access::Read, true) => Tag::Readable,
            (Access::Read, false) => Tag::ReadableIfThere,
            (Access::Execute, true) => Tag::Executable,
            (Access::Execute, false) => Tag::ExecutableIfThere,
            (Access::Write, _) => Tag::Writable,
        };
        writer.string(tag, allowed.path.to_bytes()).unwrap();
    }
    for (tag, ports) in [(Tag::Connect, &sandbox.connect), (Tag::Bind, &sandbox.bind)] {
        let ports: Vec<u64> = ports.iter().copied().map(u64::from).collect();
        writer.numbers(tag, &ports);
    }
    if sandbox.own_processes {
        writer.flag(Tag::OwnProcesses);
    }
    if let Some(tmp) = sandbox.private_tmp {
        writer.numbers(Tag::PrivateTmp, &[tmp.size, tmp.executable.into()]);
    }
    if sandbox.locked_metadata {
        writer.flag(Tag::LockedMetadata);
    }
}
