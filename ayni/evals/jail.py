"""Run as a script by sandbox.py, with nothing of ours imported: shuts itself in, then runs the program given on standard input.

The first line is "TOKEN SECONDS BYTES"; TOKEN is said once the program has come to its end.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

NO_JAIL = 77
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446  # system calls; the same numbers on x86-64 and ARM
# linux/landlock.h: execute, write, remove (2), make (7), refer (ABI 2), truncate (ABI 3); reading is left.
FORBIDDEN = 1 << 0 | 1 << 1 | sum(1 << bit for bit in range(4, 13)) | 1 << 13
TRUNCATE = 1 << 14


def refuse(what: str) -> None:
    """Ends the process: the program is not run."""
    os.write(2, f"{what}: {os.strerror(ctypes.get_errno())}".encode())
    os._exit(NO_JAIL)


def shut_in(seconds: int, memory_bytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC):
        refuse("namespaces")
    child = os.fork()  # the first process of the new process namespace: when it dies, all in there do
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        refuse("no_new_privs")
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)
    if version < 2:
        refuse("Landlock")
    rights = FORBIDDEN | (TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("<Q", rights)
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0 or libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0):
        refuse("Landlock")
    os.close(ruleset)
    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def main() -> None:
    header, program = sys.stdin.buffer.read().decode("utf-8", "replace").split("\n", 1)
    token, seconds, memory_bytes = header.split()
    heard, unheard = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    shut_in(int(seconds), int(memory_bytes))
    for stream in (1, 2):  # what the program prints is nobody's business
        os.dup2(unheard, stream)
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    except BaseException:
        os._exit(1)
    os.write(heard, token.encode())
    os._exit(0)


if __name__ == "__main__":
    main()
