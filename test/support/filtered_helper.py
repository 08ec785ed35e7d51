"""Becomes a program under a filter of system calls (seccomp(2)): `filtered_helper.py PROGRAM CALL... -- ARGUMENT...`.

Each CALL is refused with EPERM, as a container's profile does: `prctl=36` refuses one of its functions, `waitid` every
use.
"""

import ctypes
import os
import platform
import resource
import struct
import sys

EVERYWHERE = {"pidfd_send_signal": 424, "pidfd_open": 434, "close_range": 436, "landlock_create_ruleset": 444}
NUMBERS = {
    "x86_64": {"prctl": 157, "waitid": 247, **EVERYWHERE},
    "aarch64": {"prctl": 167, "waitid": 95, **EVERYWHERE},
}[platform.machine()]

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1


def instruction(code, constant, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, constant)


def refuse(call):
    name, _, argument = call.partition("=")
    if argument:
        return [
            instruction(LOAD, 0),
            instruction(EQUAL, NUMBERS[name], 0, 3),
            instruction(LOAD, 16),
            instruction(EQUAL, int(argument), 0, 1),
            instruction(RETURN, REFUSE),
        ]
    return [
        instruction(LOAD, 0),
        instruction(EQUAL, NUMBERS[name], 0, 1),
        instruction(RETURN, REFUSE),
    ]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def main():
    program, *calls = sys.argv[1:]
    separator = calls.index("--")
    calls, arguments = calls[:separator], calls[separator + 1 :]
    # What a VM may have open without close-on-exec, with a number above a limit that was lowered afterwards.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = min(hard, 70_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (high, hard))
    os.dup2(0, high - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    code = b"".join([part for call in calls for part in refuse(call)] + [instruction(RETURN, ALLOW)])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    filter_program = Program(len(code) // 8, code)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_program), 0, 0) != 0:
        raise OSError(ctypes.get_errno())
    os.execv(program, ["net_runner_shepherd", *arguments])


main()
