"""A small assembler of classic BPF for seccomp filters, which see `struct seccomp_data` as 32-bit words.

Code is made from the end to the start, so that every jump's target is known when the jump is made: a *position* is
the number of instructions from an instruction (included) to the program's end. Conditional jumps reach 255
instructions; farther ones go over an unconditional jump that is put in between.
"""

from __future__ import annotations

import struct

from hutch.errors import InvalidConfig

MAX_INSTRUCTIONS = 4096  # the kernel's BPF_MAXINSNS
_REACH = 250  # of the 255, as making one far jump moves the next target

_LOAD, _RETURN, _JUMP, _AND = 0x20, 0x06, 0x05, 0x54
_JEQ, _JGT, _JGE = 0x15, 0x25, 0x35
_LOW = 0xFFFFFFFF

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]; little-endian machines only
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16


class Assembler:
    """Collects instructions backwards; `bytes` gives the program."""

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def _add(self, code: int, if_true: int, if_false: int, k: int) -> int:
        self._reversed.append((code, if_true, if_false, k))
        return len(self._reversed)

    def ret(self, value: int) -> int:
        """Return the position of ``return value``, sharing one that is near."""
        position = self._returns.get(value)
        if position is None or len(self._reversed) - position > _REACH:
            position = self._returns[value] = self._add(_RETURN, 0, 0, value)
        return position

    def load(self, offset: int, then: int) -> int:
        """Load a word of seccomp_data and go on at `then`."""
        self._fall(then)
        return self._add(_LOAD, 0, 0, offset)

    def bit_and(self, mask: int, then: int) -> int:
        """Mask the loaded word and go on at `then`."""
        self._fall(then)
        return self._add(_AND, 0, 0, mask)

    def equal(self, value: int, yes: int, no: int) -> int:
        """Compare the loaded word for equality."""
        return self._compare(_JEQ, value, yes, no)

    def greater(self, value: int, yes: int, no: int) -> int:
        """Compare the loaded word, unsigned, for being greater."""
        return self._compare(_JGT, value, yes, no)

    def at_least(self, value: int, yes: int, no: int) -> int:
        """Compare the loaded word, unsigned, for being greater or equal."""
        return self._compare(_JGE, value, yes, no)

    def _fall(self, then: int) -> None:
        """Make `then` the next instruction, by a jump unless it is already."""
        if then != len(self._reversed):
            self._add(_JUMP, 0, 0, len(self._reversed) - then)

    def _near(self, target: int) -> int:
        """Return a position within reach from which execution comes to `target`."""
        if len(self._reversed) - target <= _REACH:
            return target
        code, _, _, value = self._reversed[target - 1]
        if code == _RETURN:
            return self.ret(value)
        return self._add(_JUMP, 0, 0, len(self._reversed) - target)

    def _compare(self, code: int, value: int, yes: int, no: int) -> int:
        if yes == no:
            return yes
        yes, no = self._near(yes), self._near(no)
        here = len(self._reversed)
        return self._add(code, here - yes, here - no, value)

    def bytes(self) -> bytes:
        """Return struct sock_filter after struct sock_filter.

        Raises:
            InvalidConfig: more instructions than the kernel takes.
        """
        if len(self._reversed) > MAX_INSTRUCTIONS:
            raise InvalidConfig(
                f"seccomp: the filter has {len(self._reversed)} instructions, the kernel takes {MAX_INSTRUCTIONS}"
            )
        return b"".join(struct.pack("<HBBI", *instruction) for instruction in reversed(self._reversed))


# --- comparing an argument --------------------------------------------------------------------------------------


def compare_argument(code: Assembler, condition: tuple[int, str, int, int], *, wide: bool, yes: int, no: int) -> int:
    """Compare a system call's argument; every comparison is unsigned.

    Args:
        code: where the instructions go.
        condition: which argument (0 to 5), ``SCMP_CMP_…``, what to compare with (for SCMP_CMP_MASKED_EQ the mask),
            and what the masked argument must equal.
        wide: whether the kernel looks at 64 bits. If not, the high half is not looked at here either: the kernel
            drops it, so a filter that does not could be passed by setting it (CVE-2019-10063).
        yes: position when the comparison holds.
        no: position when it does not.

    Returns:
        The position of the comparison.
    """
    index, op, value, value_two = condition
    if op in {"SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"}:
        yes, no = no, yes
        op = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}[op]
    low_at, high_at = ARGUMENTS + 8 * index, ARGUMENTS + 8 * index + 4
    if op == "SCMP_CMP_MASKED_EQ":
        mask, wanted = value, value_two & value
        position = _masked(code, low_at, mask & _LOW, wanted & _LOW, yes=yes, no=no)
        return _masked(code, high_at, mask >> 32, wanted >> 32, yes=position, no=no) if wide else position
    compare = {"SCMP_CMP_EQ": code.equal, "SCMP_CMP_GT": code.greater, "SCMP_CMP_GE": code.at_least}[op]
    position = code.load(low_at, compare(value & _LOW, yes, no))
    if not wide:
        return position
    high = value >> 32
    position = code.equal(high, position, no)
    if op != "SCMP_CMP_EQ":
        position = code.greater(high, yes, position)
    return code.load(high_at, position)


def _masked(code: Assembler, offset: int, mask: int, wanted: int, *, yes: int, no: int) -> int:
    if not mask:
        return yes
    position = code.equal(wanted, yes, no)
    if mask != _LOW:
        position = code.bit_and(mask, position)
    return code.load(offset, position)
