"""Device rules as an eBPF program, which is how cgroup v2 filters devices. Needs Linux 4.15, and 5.6 to replace one.

The program walks the rules from the last to the first and settles each requested access (read, write, mknod) by the
first rule that matches, so it says exactly what the list says, wildcards and exceptions included.
"""

from __future__ import annotations

import errno
import os
import struct

from hutch.errors import InvalidArgument, NotSupported, PermissionDenied, Unavailable
from hutch.linux import bpf
from hutch.runtime.cgroups import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# struct bpf_cgroup_dev_ctx: u32 access_type (access << 16 | type), u32 major, u32 minor
_ACCESS = {"m": 1, "r": 2, "w": 4}
_KIND = {"b": 1, "c": 2}

# Registers: r1 context; r2 type, r3 accesses not yet settled, r4 major, r5 minor; r0 result.
_LOAD_WORD, _AND, _RSH, _MOV_IMM, _MOV, _JNE, _EXIT = 0x61, 0x54, 0x74, 0xB7, 0xBF, 0x55, 0x95
_JEQ = 0x15


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, offset, imm)


_PROLOGUE = (
    _insn(_LOAD_WORD, 2, 1, 0)
    + _insn(_AND, 2, imm=0xFFFF)
    + _insn(_LOAD_WORD, 3, 1, 0)
    + _insn(_RSH, 3, imm=16)
    + _insn(_LOAD_WORD, 4, 1, 4)
    + _insn(_LOAD_WORD, 5, 1, 8)
)


def assemble(rules: Sequence[devices.Rule]) -> bytes:
    """Return the program for `rules`; what no rule settles is denied.

    Raises:
        InvalidArgument: more rules than a program may be long.
    """
    if len(rules) > devices.MAX_RULES + len(devices.DEFAULT_RULES) + 1:
        raise InvalidArgument(f"device rules: {len(rules)} are too many for one program")
    program = [_PROLOGUE]
    default = 0
    for rule in reversed(rules):
        if rule.is_everything:
            default = int(rule.allow)
            break
        program.append(_rule(rule))
    program += [_insn(_MOV_IMM, 0, imm=default), _insn(_EXIT)]
    return b"".join(program)


def _rule(rule: devices.Rule) -> bytes:
    mask = sum(_ACCESS[letter] for letter in rule.access)
    tests = [(2, _KIND[rule.kind])]
    tests += [(register, n) for register, n in ((4, rule.major), (5, rule.minor)) if n != devices.ANY]
    if rule.allow:
        body = [
            _insn(_AND, 3, imm=7 & ~mask),
            _insn(_JNE, 3, offset=2),
            _insn(_MOV_IMM, 0, imm=1),
            _insn(_EXIT),
        ]
    else:
        body = [
            _insn(_MOV, 0, 3),
            _insn(_AND, 0, imm=mask),
            _insn(_JEQ, 0, offset=2),
            _insn(_MOV_IMM, 0, imm=0),
            _insn(_EXIT),
        ]
    length = len(tests) + len(body)
    code = [_insn(_JNE, register, offset=length - i - 1, imm=n) for i, (register, n) in enumerate(tests)]
    return b"".join(code + body)


def install(directory: str, program: bytes) -> None:
    """Put `program` in force for the cgroup at `directory`, in the place of what is attached there.

    A single program is exchanged atomically; several (systemd's and ours) go after the new one is in force. Every
    attached program must agree to an access, so at no moment is more allowed than before or after.

    Raises:
        NotSupported: the kernel has no device programs.
        PermissionDenied: bpf(2) is not allowed.
        Unavailable: anything else the kernel says.
    """
    cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fds = [cgroup_fd]
    try:
        old_fds = [bpf.open_program(each) for each in bpf.query(cgroup_fd)]
        fds += old_fds
        program_fd = bpf.load_device_program(program)
        fds.append(program_fd)
        if len(old_fds) == 1:
            bpf.attach(cgroup_fd, program_fd, replace_fd=old_fds[0])
            return
        bpf.attach(cgroup_fd, program_fd)
        for old_fd in old_fds:
            bpf.detach(cgroup_fd, old_fd)
    except OSError as error:
        message = f"cgroup {directory}: load the device program: {(error.strerror or '').lower()}"
        if error.errno in {errno.EPERM, errno.EACCES}:
            raise PermissionDenied(message) from error
        if error.errno in {errno.ENOSYS, errno.EINVAL}:
            raise NotSupported(message, hint="device programs need Linux 4.15 with CONFIG_CGROUP_BPF") from error
        raise Unavailable(message) from error
    finally:
        for fd in fds:
            os.close(fd)  # an attached program is held by its cgroup
