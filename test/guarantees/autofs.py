#!/usr/bin/env python3
"""A mount point of autofs(5) where nothing is ever mounted: who goes in waits, until the end of stdin.

usage: autofs.py MOUNT_POINT"""
import ctypes, os, sys
path = sys.argv[1].encode()
libc = ctypes.CDLL(None, use_errno=True)
# The kernel does not hold up those of this process group: as a command of NetRunner, this one has its own.
read, write = os.pipe()
options = f"fd={write},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
if libc.mount(b"autofs", path, b"autofs", 0, options.encode()) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.close(write)
# In one write, whatever PYTHONUNBUFFERED says.
os.write(1, b"mounted\n")
sys.stdin.read()
os.close(read)
libc.umount2(path, 2)
