"""Confine this process by means of the kernel, then execute another program: a script, never imported.

``python jail.py ORDER`` with a JSON order: ``cpu`` (seconds), ``memory`` and ``output`` (bytes), ``read`` (paths),
``token`` and ``then`` (the program and its arguments). Three layers, each of which would stop most attempts alone:

* resource limits: processor time, memory, open files, size of the one file that may be written;
* Landlock: files can be read below ``read`` and nowhere else, and none can be written, created, removed or truncated;
* seccomp: of some three hundred system calls only those are allowed that an interpreter needs to read files and to
  compute. No process, thread or socket can be created, no other process signalled, no file opened for writing, no limit
  raised.

Root's capabilities are dropped as well. Standard output becomes file descriptor 3, where the verdict is written; 1 and
2 lead nowhere. If a layer cannot be set up, ``{"refused": why, "token": …}`` is written instead and nothing is run.
Numbers and structures are those of Linux's headers (linux/landlock.h, linux/seccomp.h, asm/unistd.h).
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys

VERDICT = 3
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "PATH": "/nonexistent"}

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
#: Landlock's rights: execute, read a file, read a folder; and the number of rights by version of its interface.
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
CAPABILITY_VERSION = 0x20080522
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, EACCES, ENOSYS, SIGKILL = 1, 13, 38, 9
LOAD, IS, HAS, RETURN = 0x20, 0x15, 0x45, 0x06

#: Allowed system calls, with their number on x86-64 and on AArch64 (None: there is no such call).
PLAIN = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, None), "fstat": (5, 80), "lstat": (6, None),
    "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "access": (21, None), "select": (23, None),
    "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None),
    "nanosleep": (35, 101), "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172),
    "execve": (59, 221), "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17), "readlink": (89, None),
    "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getppid": (110, 173), "sigaltstack": (131, 132), "arch_prctl": (158, None), "gettid": (186, 178),
    "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123), "getdents64": (217, 61),
    "set_tid_address": (218, 96), "fadvise64": (221, 223), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "newfstatat": (262, 79), "readlinkat": (267, 78),
    "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99),
    "dup3": (292, 24), "getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293),
    "faccessat2": (439, 439),
}  # fmt: skip
#: Calls that are allowed with certain arguments only: their numbers, which argument, and its values.
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
OPEN, OPENAT = (2, None, 1), (257, 56, 2)
KILL_CALL, TGKILL = (62, 129, 0), (234, 131, 0)
IOCTL, FCNTL = (16, 29, 1), (72, 25, 1)
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)  # is it a terminal, its size, bytes to read, close on exec
FCNTLS = (0, 1, 2, 3, 1030)  # duplicate, close on exec, get flags
PRLIMIT, CLONE3 = (302, 261, 2), (435, 435)
#: Column in the tables, and the number that identifies the architecture to seccomp.
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

LIBRARY = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """A layer cannot be set up."""


def call(layer: str, function: str, *arguments: int | bytes | None) -> int:
    """A C function's result, every argument as wide as a register; raises `Refused` if it is negative."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(LIBRARY[function](*wide))
    if result < 0:
        raise Refused(f"{layer}: {os.strerror(ctypes.get_errno())}")
    return result


def limit(cpu: int, memory: int, output: int) -> None:
    """Resource limits, soft and hard. The limit on processes does not apply to root, but seccomp does."""
    limits = {
        resource.RLIMIT_CPU: (cpu, cpu + 1),
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_FSIZE: (output, output),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_NPROC: (1, 1),
        resource.RLIMIT_CORE: (0, 0),
    }
    for which, ends in limits.items():
        resource.setrlimit(which, ends)


def drop_privileges() -> None:
    """No capability, and none to be gained by starting a program; die with the parent."""
    call("no new privileges", "prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("death with the parent", "prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    call("capabilities", "capset", struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24))


def forbid_files(read: list[str]) -> None:
    """Landlock: allow reading and executing what is below ``read``; no other file, no TCP, no signals."""
    version = call("Landlock", "syscall", CREATE_RULESET, None, 0, 1)
    rights = (1 << RIGHTS_BY_VERSION.get(version, 16)) - 1
    sizes = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
    attributes = struct.pack("=QQQ", rights, 3, 3)[: sizes.get(version, 24)]
    rules = call("Landlock", "syscall", CREATE_RULESET, attributes, len(attributes), 0)
    for path in read:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # a missing path needs no rule
        allowed = EXECUTE | READ_FILE | (READ_DIR if os.path.isdir(path) else 0)
        call(f"Landlock for {path}", "syscall", ADD_RULE, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    call("Landlock", "syscall", RESTRICT_SELF, rules, 0)
    os.close(rules)


def libraries() -> list[str]:
    """The shared libraries of this interpreter, wherever they are."""
    with open("/proc/self/maps", encoding="utf-8") as lines:
        paths = {line.split(maxsplit=5)[5].strip() for line in lines if line.count("/")}
    return sorted(path for path in paths if ".so" in path)


def forbid_calls() -> None:
    """The seccomp filter, as a program in the kernel's packet filter language."""
    machine = platform.machine()
    if machine not in MACHINES or sys.byteorder != "little":
        raise Refused(f"seccomp: no table of system calls for {machine}")
    column, architecture = MACHINES[machine]
    program = b"".join(struct.pack("=HBBI", *step) for step in steps(column, architecture))
    text = ctypes.create_string_buffer(program, len(program))
    order = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    call("seccomp", "prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, order, 0, 0)


Step = tuple[int, int, int, int]


def steps(column: int, architecture: int) -> list[Step]:
    """Each step is (code, skip if true, skip if false, value). A call that no step allows gets EPERM."""
    process = os.getpid()
    program = [(LOAD, 0, 0, 4), (IS, 1, 0, architecture), back(KILL), (LOAD, 0, 0, 0)]
    for numbers in PLAIN.values():
        program += only(numbers[column], [back(ALLOW)])
    for call_ in (OPEN, OPENAT):
        reading = [argument(call_[2]), (HAS, 0, 1, WRITING), back(REFUSE | EACCES), back(ALLOW)]
        program += only(call_[column], reading)
    for call_, values in ((KILL_CALL, (process,)), (TGKILL, (process,)), (IOCTL, IOCTLS), (FCNTL, FCNTLS)):
        program += only(call_[column], [argument(call_[2]), *one_of(values)])
    no_new_limit = [argument(PRLIMIT[2]), *zero(argument(PRLIMIT[2], upper=True))]
    program += only(PRLIMIT[column], no_new_limit)
    program += only(CLONE3[column], [back(REFUSE | ENOSYS)])  # then the C library falls back to clone, refused below
    return [*program, back(REFUSE | EPERM)]


def only(number: int | None, then: list[Step]) -> list[Step]:
    """``then`` for the system call ``number``; all others skip it."""
    return [] if number is None else [(IS, 0, len(then), number), *then]


def one_of(values: tuple[int, ...]) -> list[Step]:
    """Allow where the loaded argument is one of ``values``."""
    return [step for value in values for step in ((IS, 0, 1, value), back(ALLOW))] + [back(REFUSE | EPERM)]


def zero(upper: Step) -> list[Step]:
    """Allow where the loaded half of an argument and its ``upper`` half are both 0."""
    return [(IS, 0, 3, 0), upper, (IS, 0, 1, 0), back(ALLOW), back(REFUSE | EPERM)]


def argument(index: int, upper: bool = False) -> Step:
    """Load half an argument of the call; arguments follow number, architecture and instruction pointer."""
    return (LOAD, 0, 0, 16 + 8 * index + (4 if upper else 0))


def back(verdict: int) -> Step:
    return (RETURN, 0, 0, verdict)


def main() -> None:
    order = json.loads(sys.argv[1])
    os.dup2(1, VERDICT)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        drop_privileges()
        forbid_files([*order["read"], *libraries()])
        limit(order["cpu"], order["memory"], order["output"])
        forbid_calls()
        os.execve(order["then"][0], order["then"], {**os.environ, **ENVIRONMENT})
    except (Refused, OSError, ValueError) as error:
        os.write(VERDICT, json.dumps({"refused": str(error), "token": order["token"]}).encode())
        os._exit(1)


if __name__ == "__main__":
    main()
