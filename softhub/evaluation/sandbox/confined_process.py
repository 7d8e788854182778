"""What runs in the sandbox: confine this process for good, then run one program and its tests.

Started by `softhub.evaluation.sandbox.runner` as a script, with `python -I -S`: it imports nothing
but the standard library, and softhub imports nothing from it. stdin has the program, stdout takes
the verdict.

Three fences, each of the kernel's and none of them to be taken down again: resource limits;
Landlock (files, https://docs.kernel.org/userspace-api/landlock.html); and a seccomp filter (system
calls, https://docs.kernel.org/userspace-api/seccomp_filter.html), which allows threads but no other
process, no socket but a pair within the process, and no signal to anybody.
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys
import types

EPERM, ENOSYS = 1, 38
# System calls that fail with EPERM, by their numbers on x86-64 and arm64 (None: it has none).
_DENIED = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "syslog": (103, 116),
    "setrlimit": (160, 164),
    # Landlock leaves a file's metadata alone, and before Linux 6.2 its length.
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
# Denied too where Landlock cannot keep writing to the temporary folder.
_WRITING = {
    "creat": (85, None),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
}
_CLONE, _SOCKETPAIR, _PRLIMIT = (56, 220), (53, 199), (302, 261)
_OPEN, _OPENAT, _CAPSET = (2, None), (257, 56), (126, 91)
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
# Later calls are refused as unknown (io_uring among them), but for what C libraries rely on:
# close_range, faccessat2, futex_waitv.
_LAST_KNOWN = (334, 293)
_LATER = (436, 439, 449)
_AUDIT_ARCH = (0xC000003E, 0xC00000B7)
_MACHINES = {"x86_64": 0, "aarch64": 1}

_THREAD = 0x10000  # CLONE_THREAD
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_LIBC = ctypes.CDLL(None, use_errno=True)


class NotConfined(Exception):
    """This machine cannot confine a program."""


def confine(limits: dict[str, int]) -> str:
    """Fence this process in; returns what it can no longer do, in words."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little":
        raise NotConfined(f"{platform.system()} on {platform.machine()}")
    for name, value in limits.items():
        _limit(getattr(resource, name), value)
    capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _call(_CAPSET[machine], *capabilities)
    _prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    abi = _restrict_files()
    _filter_calls(machine, may_write=abi >= 3)
    _check()
    files = {
        True: "files of its temporary folder alone, and those of Python to read (Landlock)",
        False: "no file written (seccomp), those of Python alone read (Landlock)",
    }
    shown = files[abi >= 3] if abi else "no file written (seccomp; all of yours can be read)"
    return f"no network, no other process (seccomp); {shown}"


def _limit(kind: int, value: int) -> None:
    """Set a limit for good, but never above what this process has got itself."""
    grace = 1 if kind == resource.RLIMIT_CPU else 0  # at the first SIGXCPU, at the second SIGKILL
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        value = min(value, most - grace)
    resource.setrlimit(kind, (value, value + grace))


def _check() -> None:
    """Try what must fail: a wrong table of numbers must not pass for a fence."""
    if _LIBC.socket(2, 1, 0) >= 0:
        raise NotConfined("a socket could be opened in spite of the filter")
    try:
        child = os.fork()
    except OSError:
        return
    if child == 0:
        os._exit(0)
    raise NotConfined("a process could be started in spite of the filter")


# --- files ---


def _restrict_files() -> int:
    """Leave the temporary folder and, to be read, Python's own files; returns Landlock's version.

    0 means that the kernel has no Landlock.
    """
    abi = _LIBC.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return 0
    handled = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}.get(abi, 0xFFFF)
    rules = _call(_LANDLOCK_CREATE, ctypes.byref(ctypes.c_uint64(handled)), 8, 0)
    read_file, read_folder, write_file = 4, 8, 2
    for folder in _readable_folders():
        _permit(rules, folder, read_file | read_folder)
    for file in ("/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero"):
        _permit(rules, file, read_file)
    _permit(rules, os.devnull, read_file | write_file)
    _permit(rules, ".", handled)
    _call(_LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)
    return int(abi)


def _readable_folders() -> list[str]:
    """Where the standard library and the C libraries below it are."""
    python = [path for path in sys.path if not path.endswith(".zip")]
    libraries = [f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    return [*python, *libraries, "/usr/share/zoneinfo"]


def _permit(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rule = struct.pack("=Qi", rights, place)
    _call(_LANDLOCK_ADD, rules, 1, rule, 0)
    os.close(place)


# --- system calls ---


def _filter_calls(machine: int, *, may_write: bool) -> None:
    program = _filter(machine, may_write=may_write)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    _prctl(22, 2, header, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _filter(machine: int, *, may_write: bool) -> list[tuple[int, int, int, int]]:
    """The filter as classic BPF: (operation, jump if true, jump if false, operand)."""
    allow, deny = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | EPERM)
    low, high = 0, 4  # halves of an argument

    def argument(index: int, half: int = low) -> tuple[int, int, int, int]:
        return (_LOAD, 0, 0, _ARGUMENTS + 8 * index + half)

    def on(call: tuple[int | None, ...], *lines: tuple[int, int, int, int]) -> None:
        if call[machine] is not None:
            program.extend([(_EQUAL, 0, len(lines), call[machine] or 0), *lines])

    program = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for call in (*_DENIED.values(), *(() if may_write else _WRITING.values())):
        on(call, deny)
    on(_CLONE, argument(0), (_ANY_BIT, 0, 1, _THREAD), allow, deny)
    # Pairs of datagram sockets could be sent on to any socket of the machine; streams cannot.
    on(_SOCKETPAIR, argument(1), (_AND, 0, 0, 0xF), (_EQUAL, 0, 1, 1), allow, deny)
    # Limits may be asked for, not set.
    is_zero = (_EQUAL, 0, 1, 0)
    on(_PRLIMIT, argument(2), (_EQUAL, 0, 3, 0), argument(2, high), is_zero, allow, deny)
    if not may_write:
        on(_OPEN, argument(1), (_ANY_BIT, 0, 1, _WRITE_FLAGS), deny, allow)
        on(_OPENAT, argument(2), (_ANY_BIT, 0, 1, _WRITE_FLAGS), deny, allow)
    for number in _LATER:
        program += [(_EQUAL, 0, 1, number), allow]
    program += [(_ABOVE, 0, 1, _LAST_KNOWN[machine]), (_RETURN, 0, 0, _ERROR | ENOSYS), allow]
    return program


def _call(number: int, *arguments: object) -> int:
    return _checked(_LIBC.syscall(number, *arguments), f"system call {number}")


def _prctl(*arguments: object) -> int:
    return _checked(_LIBC.prctl(*arguments), f"prctl {arguments[0]}")


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise NotConfined(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


# --- the program ---


def main() -> None:
    """Read a job, run it confined, write the verdict."""
    job = json.load(sys.stdin.buffer)
    verdict = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    token, passed = job["token"], json.dumps([job["token"], "passed", ""]).encode()
    write, leave, dumps = os.write, os._exit, json.dumps
    try:
        fences = confine(job["limits"])
    except NotConfined as error:
        write(verdict, dumps([token, "unconfined", str(error)]).encode())
        leave(0)
    if job["code"] is None:
        write(verdict, dumps([token, "confined", fences]).encode())
        leave(0)
    problem = run(job["code"], job["tests"])
    write(verdict, passed if problem is None else dumps([token, *problem]).encode())
    leave(0)  # at once: neither threads nor exit handlers have another word


def run(code: str, tests: str) -> tuple[str, str] | None:
    """Run a program, then its tests; returns how it failed, or None.

    They are compiled each for itself, so that no open quote in the one can swallow the other.
    """
    module = types.ModuleType("program")
    sys.modules["program"] = module
    sys.argv = ["program"]
    try:
        for part, text in (("program", code), ("tests", tests)):
            exec(compile(text, f"<{part}>", "exec"), module.__dict__)
    except SystemExit:
        return "exited", "left before its tests were done"
    except BaseException as error:  # whatever a program throws
        return "failed", _shown(error)
    return None


def _shown(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:  # a program may throw what cannot be shown
        return "an exception that cannot be shown"


if __name__ == "__main__":
    main()
