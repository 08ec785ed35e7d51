"""Programs that try to get away: `hostile.py NAME [ARGUMENT]`.

Each does its worst, prints "ready", and then waits for a line (or the end) of its stdin to exit with status 7, unless
it says otherwise. What it does to its shepherd, launcher and guard it may do because it is the same user.
"""

import ctypes
import errno
import os
import signal
import sys
import time

BOUND = 120  # seconds after which every process ends by itself, whatever goes wrong

PR_SET_PDEATHSIG = 1
PTRACE_ATTACH = 16
PTRACE_SEIZE = 0x4206

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def forever():
    time.sleep(BOUND)
    os._exit(0)


def fork(body):
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid


def orphan(body):
    """A process whose parent is gone before this returns."""
    os.waitpid(fork(lambda: fork(body)), 0)


def told(body):
    """Waits until `body`, in a process that `body` makes, has called what it is given."""
    read, write = os.pipe()

    def tell():
        os.write(write, b"x")
    result = body(tell)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return result


def ignore_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


# --- shapes -----------------------------------------------------------------------------------------


def moved_leader(members=(lambda: None,)):
    """An orphan that led a group, in which it keeps a child that it does not reap, and that moved to another group, the
    leader of which is gone."""
    def run(tell):
        ignore_signals()
        os.setpgid(0, 0)
        for member in members:
            fork(member)
        leader = fork(forever)
        os.setpgid(leader, leader)
        os.setpgid(0, leader)
        os.kill(leader, signal.SIGKILL)
        os.waitpid(leader, 0)
        tell()
        forever()
    told(lambda tell: orphan(lambda: run(tell)))


def moved_leader_with_group():
    """The same, with the group full of life."""
    moved_leader((forever, forever, forever))


def sessions():
    """A new session at every second level, and every third parent gone."""
    def level(depth, tell):
        ignore_signals()
        if depth % 2 == 0:
            os.setsid()
        if depth == 0:
            tell()
            forever()
        fork(lambda: level(depth - 1, tell))
        if depth % 3 == 0:
            os._exit(0)
        forever()
    told(lambda tell: fork(lambda: level(11, tell)))


def stopped():
    """Stopped children and orphans, in groups and sessions of their own."""
    def run(own, tell):
        own()
        tell()
        os.kill(os.getpid(), signal.SIGSTOP)
        forever()
    for own in (lambda: None, lambda: os.setpgid(0, 0), os.setsid):
        told(lambda tell: fork(lambda: run(own, tell)))
        told(lambda tell: orphan(lambda: run(own, tell)))


def holds_zombies():
    """Zombies that nobody reaps, of a command and of an orphan, some of them leaders of groups."""
    def brood():
        for number in range(40):
            fork(lambda: os.setpgid(0, 0) if number % 2 else None)

    def run(tell):
        brood()
        tell()
        forever()
    brood()
    told(lambda tell: orphan(lambda: run(tell)))


def traced():
    """A child in another session traces the command: signals do not reach it, and nobody is told of its death."""
    command = os.getpid()

    def run(tell):
        os.setsid()
        ignore_signals()
        if libc.ptrace(PTRACE_SEIZE, command, None, None) == 0:
            tell()
        forever()
    told(lambda tell: fork(lambda: run(tell)))


def traced_orphan():
    """Two orphans, of which one traces the other."""
    def run(tell):
        os.setsid()
        tracee = fork(forever)
        if libc.ptrace(PTRACE_ATTACH, tracee, None, None) == 0:
            tell()
        forever()
    told(lambda tell: orphan(lambda: run(tell)))


def forks_and_moves():
    """Forks and changes its session and group as fast as it can; the program that does so is given."""
    ignore_signals()
    for _ in range(2):
        os.spawnv(os.P_NOWAIT, sys.argv[2], [sys.argv[2]])


# --- against the helpers -------------------------------------------------------------------------------


def parent_of(pid):
    with open("/proc/%d/stat" % pid) as file:
        return int(file.read().rpartition(")")[2].split()[1])


def helpers():
    shepherd = os.getppid()
    launcher = parent_of(shepherd)
    return {"s": shepherd, "l": launcher, "g": parent_of(launcher)}


def kill_helpers():
    """Kills those that are given, each when the one before is gone; from another session, too."""
    above = helpers()

    def attack():
        ignore_signals()
        libc.prctl(PR_SET_PDEATHSIG, 0)
        for who in sys.argv[2]:
            os.kill(above[who], signal.SIGKILL)
            while alive(above[who]):
                time.sleep(0.001)
            time.sleep(0.05)
        forever()

    def from_session():
        os.setsid()
        fork(forever)
        attack()
    os.write(1, b"ready\n")
    fork(from_session)
    attack()


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill_helpers_at_once():
    above = helpers()
    os.write(1, b"ready\n")
    for who in "gls":
        os.kill(above[who], signal.SIGKILL)
    forever()


def kill_helpers_at_once_and_stay():
    """The same, without the signal that the kernel would send; and its child has none."""
    above = helpers()
    libc.prctl(PR_SET_PDEATHSIG, 0)
    fork(forever)
    os.write(1, b"ready\n")
    for who in "gls":
        os.kill(above[who], signal.SIGKILL)
    forever()


def stop_helpers():
    """Stops those that are given, and itself."""
    above = helpers()
    ignore_signals()
    os.write(1, b"ready\n")
    for who in sys.argv[2]:
        os.kill(above[who], signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    forever()


def stop_shepherd_again():
    """Stops its shepherd whenever that goes on."""
    shepherd = os.getppid()

    def run():
        os.setsid()
        while True:
            try:
                os.kill(shepherd, signal.SIGSTOP)
            except OSError:
                forever()
            time.sleep(0.0005)
    fork(run)


def signal_helpers():
    """Every signal but those that nothing can block."""
    for pid in helpers().values():
        for number in range(1, 65):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                os.kill(pid, number)


def trace_shepherd():
    """Says what became of it."""
    result = libc.ptrace(PTRACE_SEIZE, os.getppid(), None, None)
    os.write(1, b"traced\n" if result == 0 else errno.errorcode[ctypes.get_errno()].encode() + b"\n")
    try:
        open("/proc/%d/mem" % os.getppid(), "rb")
        os.write(1, b"open\n")
    except OSError as error:
        os.write(1, errno.errorcode[error.errno].encode() + b"\n")
    os._exit(0)


def trace():
    """Traces another process, and does not take note of what happens to it."""
    if libc.ptrace(PTRACE_SEIZE, int(sys.argv[2]), None, None) == 0:
        os.write(1, b"traced\n")
    sys.stdin.readline()
    os._exit(0)


def main():
    globals()[sys.argv[1]]()
    os.write(1, b"ready\n")
    sys.stdin.readline()
    os._exit(7)


main()
