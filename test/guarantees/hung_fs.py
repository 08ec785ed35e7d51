#!/usr/bin/env python3
"""A file system (FUSE) with an empty `file` in it, that answers until a file is there, and then no more. It says so when it is asked then.

usage: hung_fs.py MOUNT_POINT STOP_FILE"""
import ctypes, os, struct, sys
mount_point, stop = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
if libc.mount(b"hung", mount_point.encode(), b"fuse", 0, options.encode()) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
# In one write, whatever PYTHONUNBUFFERED says.
os.write(1, b"mounted\n")
LOOKUP, GETATTR, OPEN, FLUSH, INIT = 1, 3, 14, 25, 26
FILE = 2
said = False
def attributes(node):
    mode = 0o100666 if node == FILE else 0o40755
    return struct.pack("<QQQQQQIIIIIIIIII", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
while True:
    try:
        request = os.read(fd, 1 << 17)
    except OSError:
        break
    length, opcode, unique, node = struct.unpack_from("<IIQQ", request)
    def answer(error, payload=b""):
        os.write(fd, struct.pack("<IiQ", 16 + len(payload), error, unique) + payload)
    if opcode == INIT:
        answer(0, struct.pack("<IIIIHHIIHHI", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0) + b"\0" * 28)
    elif os.path.exists(stop):
        if not said:
            os.write(1, b"does not answer\n")
            said = True
    elif opcode == GETATTR:
        # Valid for no time, so that each look asks again.
        answer(0, struct.pack("<QII", 0, 0, 0) + attributes(node))
    elif opcode == LOOKUP and request[40:length] == b"file\0":
        answer(0, struct.pack("<QQQQII", FILE, 0, 0, 0, 0, 0) + attributes(FILE))
    elif opcode == OPEN:
        answer(0, struct.pack("<QII", 0, 0, 0))
    elif opcode == FLUSH:
        answer(0)
    elif opcode in (2, 36, 42, 38):
        continue
    else:
        answer(-38)
