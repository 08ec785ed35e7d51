//! The limit: loops around the system calls, with nothing between. Each prints one number.
//!
//! - `raw spawn N`: microseconds of N times posix_spawn(3), read to the end, waitpid(2), each on a line
//! - `raw read BLOCK TOTAL`, `raw write BLOCK TOTAL`: bytes per second through a pipe of 1 MiB
//! - `raw pingpong N`: microseconds of N lines through cat(1) and back, each on a line
//! - `raw writer BLOCK TOTAL`, `raw lines LENGTH TOTAL`, `raw sink`: what stands at the other end
//! - `raw count TOTAL`: reads that many bytes, or to the end if it comes sooner, and prints how many there were
//! - `raw plot TITLE UNIT FILE`: an SVG of lines `name value` on stdin
//! - `raw series TITLE UNIT FILE`: an SVG of lines `name TAB x TAB y` on stdin

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{exit, Command, Stdio};
use std::time::Instant;

mod plot;

const PIPE_SIZE: libc::c_int = 1024 * 1024;
const READ_SIZE: usize = 256 * 1024;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> usize { args[at].parse().expect("a number") };
    match args.first().map(String::as_str) {
        Some("spawn") => spawn(number(1)),
        Some("read") => read(number(1), number(2)),
        Some("write") => write(number(1), number(2)),
        Some("pingpong") => pingpong(number(1)),
        Some("writer") => print(&vec![b'x'; number(1)], number(2)),
        Some("lines") => {
            let mut line = vec![b'x'; number(1)];
            line.push(b'\n');
            let block = line.repeat((65_536 / line.len()).max(1));
            print(&block, number(2));
        }
        Some("sink") => sink(),
        Some("count") => count(number(1)),
        Some("plot") => plot::bars(&args[1], &args[2], &args[3]),
        Some("series") => plot::series(&args[1], &args[2], &args[3]),
        _ => {
            eprintln!("see the head of bench/raw/src/main.rs");
            exit(64);
        }
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: pipe2(2) writes two descriptors, which belong to nobody else.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

fn grow(fd: &OwnedFd) {
    // SAFETY: F_SETPIPE_SZ takes an int; a refusal leaves the pipe as it is.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_SIZE) };
}

fn spawn(count: usize) {
    let path = CString::new("/bin/true").expect("no NUL");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let (read, write) = pipe();
        // SAFETY: the calls of posix_spawn(3), with values that live as long as they are used.
        unsafe {
            let mut actions = std::mem::zeroed();
            libc::posix_spawn_file_actions_init(&mut actions);
            libc::posix_spawn_file_actions_adddup2(&mut actions, write.as_raw_fd(), 1);
            let argv = [path.as_ptr().cast_mut(), std::ptr::null_mut()];
            let mut pid = 0;
            let spawned = libc::posix_spawn(
                &mut pid,
                path.as_ptr(),
                &actions,
                std::ptr::null(),
                argv.as_ptr(),
                libc::environ.cast(),
            );
            assert_eq!(spawned, 0);
            libc::posix_spawn_file_actions_destroy(&mut actions);
            drop(write);
            let mut byte = 0u8;
            while libc::read(read.as_raw_fd(), (&raw mut byte).cast(), 1) > 0 {}
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        times.push(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    times.iter().for_each(|time| println!("{time:.1}"));
}

fn myself() -> Command {
    Command::new(std::env::current_exe().expect("the path of this program"))
}

fn rate(total: usize, start: Instant) {
    println!("{:.0}", total as f64 / start.elapsed().as_secs_f64());
}

fn read(block: usize, total: usize) {
    let (read, write) = pipe();
    grow(&read);
    let mut writer = myself()
        .args(["writer", &block.to_string(), &total.to_string()])
        .stdout(Stdio::from(write))
        .spawn()
        .expect("the writer starts");
    let mut file = std::fs::File::from(read);
    let mut buffer = vec![0; READ_SIZE];
    let mut count = 0;
    let start = Instant::now();
    loop {
        match file.read(&mut buffer).expect("read(2)") {
            0 => break,
            length => count += length,
        }
    }
    rate(count, start);
    let _ = writer.wait();
}

fn write(block: usize, total: usize) {
    let (read, write) = pipe();
    grow(&write);
    let mut sink = myself()
        .arg("sink")
        .stdin(Stdio::from(read))
        .spawn()
        .expect("the sink starts");
    let mut file = std::fs::File::from(write);
    let data = vec![b'x'; block];
    let start = Instant::now();
    for _ in 0..total / block {
        file.write_all(&data).expect("write(2)");
    }
    drop(file);
    let _ = sink.wait();
    rate(total, start);
}

fn pingpong(count: usize) {
    let mut cat = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat starts");
    let mut to = cat.stdin.take().expect("piped");
    let mut from = cat.stdout.take().expect("piped");
    let mut line = [0; 6];
    for _ in 0..count {
        let start = Instant::now();
        to.write_all(b"hello\n").expect("write(2)");
        from.read_exact(&mut line).expect("read(2)");
        println!("{:.1}", start.elapsed().as_nanos() as f64 / 1000.0);
    }
    drop(to);
    let _ = cat.wait();
}

fn print(block: &[u8], total: usize) {
    let mut left = total;
    while left > 0 {
        let size = block.len().min(left);
        // SAFETY: the buffer has `size` bytes.
        let written = unsafe { libc::write(1, block.as_ptr().cast(), size) };
        if written <= 0 {
            exit(1);
        }
        left -= written as usize;
    }
}

fn sink() {
    let mut buffer = vec![0; 1024 * 1024];
    let mut stdin = std::io::stdin().lock();
    while stdin.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

fn count(total: usize) {
    let mut buffer = vec![0; 1024 * 1024];
    let mut stdin = std::io::stdin().lock();
    let mut count = 0;
    while count < total {
        match stdin.read(&mut buffer).expect("read(2)") {
            0 => break,
            length => count += length,
        }
    }
    println!("{count}");
}
