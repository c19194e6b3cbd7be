"""Interpreters of the two kinds of BPF that hutch assembles, written from the kernel's documentation."""

from __future__ import annotations

import functools
import struct


@functools.lru_cache(maxsize=4)
def _decode(layout: str, program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack(layout, program))


def run_classic(program: bytes, data: bytes) -> int:
    """Run a seccomp filter on a struct seccomp_data; returns what the filter returns.

    Documentation/networking/filter.rst; only the instructions that kernel/seccomp.c admits.
    """
    insns = _decode("<HBBI", program)
    accumulator = 0
    at = 0
    while True:
        code, jump_true, jump_false, k = insns[at]  # IndexError: fell off the end, which the kernel would refuse
        at += 1
        if code == 0x20:  # ld [k]
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:  # and #k
            accumulator &= k
        elif code == 0x05:  # ja k
            at += k
        elif code == 0x15:  # jeq
            at += jump_true if accumulator == k else jump_false
        elif code == 0x25:  # jgt
            at += jump_true if accumulator > k else jump_false
        elif code == 0x35:  # jge
            at += jump_true if accumulator >= k else jump_false
        elif code == 0x45:  # jset
            at += jump_true if accumulator & k else jump_false
        elif code == 0x06:  # ret
            return k
        else:
            raise AssertionError(f"instruction {at - 1}: code {code:#x}")


def seccomp_data(number: int, arch: int, args: tuple[int, ...]) -> bytes:
    """Pack struct seccomp_data."""
    padded = [*args, *[0] * (6 - len(args))]
    return struct.pack("<iIQ6Q", number - (1 << 32) if number >= 1 << 31 else number, arch, 0, *padded)


def run_device(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run a cgroup device program; returns 0 (denied) or 1.

    Documentation/bpf/standardization/instruction-set.rst; 32-bit ALU operations zero the upper half.
    """
    context = struct.pack("<III", access << 16 | kind, major, minor)
    registers = [0] * 11
    insns = _decode("<BBhi", program)
    at = 0
    while True:
        code, operands, offset, imm = insns[at]
        dst, src = operands & 15, operands >> 4
        at += 1
        if code == 0x61:  # r = *(u32 *)(ctx + offset)
            (registers[dst],) = struct.unpack_from("<I", context, offset)
        elif code == 0x54:
            registers[dst] = registers[dst] & imm & 0xFFFFFFFF
        elif code == 0x74:
            registers[dst] = (registers[dst] & 0xFFFFFFFF) >> imm
        elif code == 0xB7:
            registers[dst] = imm
        elif code == 0xBF:
            registers[dst] = registers[src]
        elif code == 0x55:
            at += offset if registers[dst] != imm else 0
        elif code == 0x15:
            at += offset if registers[dst] == imm else 0
        elif code == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"instruction {at - 1}: code {code:#x}")
