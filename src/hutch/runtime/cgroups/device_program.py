"""Device rules as an eBPF program, which is how cgroup v2 filters devices. Needs Linux 4.15, and 5.6 to replace one.

The program walks the rules from the last to the first and settles each requested access (read, write, mknod) by the
first rule that matches, so it says exactly what the list says, wildcards and exceptions included.
"""

from __future__ import annotations

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
    """Put `program` in force for the cgroup at `directory`, in the place of the one this module put there before.

    The exchange is atomic: at no moment is the cgroup without a program.

    Raises:
        NotSupported: the kernel has no device programs.
        PermissionDenied: bpf(2) is not allowed.
    """
    cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        program_fd = bpf.load_device_program(program)
        try:
            bpf.replace(cgroup_fd, program_fd)
        finally:
            os.close(program_fd)  # the cgroup holds it now
    except OSError as error:
        cause = os.strerror(error.errno or 0).lower()
        raise {1: PermissionDenied, 13: PermissionDenied, 38: NotSupported, 22: NotSupported}.get(
            error.errno or 0, Unavailable
        )(f"cgroup {directory}: load the device program: {cause}") from error
    finally:
        os.close(cgroup_fd)
