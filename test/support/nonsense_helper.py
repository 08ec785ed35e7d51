"""A helper that greets, and answers each command with the same messages: `nonsense_helper.py GREETING MESSAGE...`,
each in hexadecimal, or `started`. With `unread` alone, it does not even read the command."""
import os, socket, struct, sys

launcher = socket.socket(fileno=3)
launcher.send(sys.argv[1].encode())
started = struct.pack("=BxxxI24x", 1, os.getpid())
reads = sys.argv[2:] != ["unread"]
messages = [started if text == "started" else bytes.fromhex(text) for text in sys.argv[2:] if reads]
controls = []
while True:
    request, fds, _, _ = socket.recv_fds(launcher, 1, 1)
    if not request:
        break
    control = socket.socket(fileno=fds[0])
    if reads:
        _, passed, _, _ = socket.recv_fds(control, 1 << 20, 5)
        for fd in passed:
            os.close(fd)
    for message in messages:
        control.send(message)
    # Open, as that of a shepherd that lives.
    controls.append(control)
