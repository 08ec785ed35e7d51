"""The program shapes of the fault matrix: `shape.py NAME READY_FILE`.

Each builds its process tree, creates READY_FILE, prints "ready", and then waits for a line (or the
end) of its stdin to exit with status 7, leaving whatever else it started behind. With FLOOD in its
environment it prints without end instead.
"""

import os
import signal
import sys
import time

BOUND = 120  # seconds after which every process ends by itself, whatever goes wrong


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


def plain():
    pass


def background_children():
    for _ in range(5):
        fork(forever)


def setsid_child():
    def child():
        os.setsid()
        forever()
    fork(child)


def daemon():
    def child():
        os.setsid()

        def grandchild():
            os.chdir("/")
            os.closerange(0, 64)
            forever()
        fork(grandchild)
    os.waitpid(fork(child), 0)


def ignores_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    fork(forever)


def stopped():
    fork(forever)


def deep():
    read, write = os.pipe()

    def level(depth):
        if depth == 0:
            os.write(write, b"x")
            forever()
        fork(lambda: level(depth - 1))
        forever()
    fork(lambda: level(49))
    os.read(read, 1)


def wide():
    for _ in range(200):
        fork(forever)


def keeps_forking():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def generation(left):
        # Each forks the next and is gone: whoever looks for it finds its child at best.
        while left > 0:
            if os.fork() != 0:
                os._exit(0)
            left -= 1
            if left % 50 == 0:
                os.setsid()
        forever()
    for _ in range(2):
        fork(lambda: generation(20000))


def closes_stdout():
    pass


def holds_stdout():
    fork(forever)


def other_user():
    def child():
        os.setgid(65534)
        os.setuid(65534)
        forever()
    fork(child)


def terminal():
    # As a shell with job control does: a job in a process group of its own, in the foreground.
    import termios
    try:
        settings = termios.tcgetattr(0)
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(0, termios.TCSANOW, settings)
    except termios.error:
        pass  # On another node, without a terminal.
    fork(forever)

    def job():
        os.setpgid(0, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        forever()
    fork(job)


def cgroup():
    background_children()
    setsid_child()


def own_processes():
    """In a PID namespace of its own: nothing else holds these together."""
    def stubborn():
        os.setsid()
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_IGN)
        forever()
    background_children()
    daemon()
    fork(stubborn)

    # A sibling of the command's, and so a child of the shepherd.
    import ctypes
    import platform
    clone = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    CLONE_PARENT = 0x8000
    if ctypes.CDLL(None).syscall(clone, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        stubborn()


def main():
    name, ready = sys.argv[1:3]
    globals()[name]()
    open(ready, "w").close()
    os.write(1, b"ready\n")
    if name == "closes_stdout":
        os.close(1)
        os.open("/dev/null", os.O_WRONLY)
    if name == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if "FLOOD" in os.environ:
        until = time.monotonic() + BOUND
        while time.monotonic() < until:
            os.write(1, b"y\n" * 2048)
    sys.stdin.readline()
    os._exit(7)


main()
