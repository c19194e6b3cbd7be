"""Our seccomp compiler against libseccomp's: the same profile, the same answer to every call.

libseccomp builds its program through its C interface, both programs are run by an interpreter. Where hutch means to
differ (arguments the kernel cuts to 32 bits, foreign architectures, ENOSYS for newer calls) is said at each test.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hutch.runtime import seccomp, syscalls
from tests.support import requires
from tests.support.bpf import run_classic, seccomp_data

LIBRARY = ctypes.util.find_library("seccomp")
pytestmark = [pytest.mark.skipif(LIBRARY is None, reason="libseccomp is not installed"), requires("machine:x86_64")]

TOKENS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
NATIVE = 0xC000003E
COMPARE = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
ALLOW, ENOSYS = 0x7FFF0000, 0x50026


class Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class Libseccomp:
    """One filter context."""

    def __init__(self, default: int, architectures: list[str]) -> None:
        self.lib = ctypes.CDLL(LIBRARY)
        self.lib.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.lib.seccomp_init(ctypes.c_uint32(default)))
        for name in architectures:
            if TOKENS[name] != NATIVE:
                assert self.lib.seccomp_arch_add(self.context, ctypes.c_uint32(TOKENS[name])) == 0

    def resolve(self, name: str, token: int = NATIVE) -> int:
        number: int = self.lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode())
        return number

    def rule(self, action: int, name: str, comparisons: list[tuple[int, str, int, int]]) -> int:
        array = (Comparison * max(len(comparisons), 1))()
        for slot, (index, op, value, value_two) in zip(array, comparisons, strict=False):
            slot.arg, slot.op, slot.datum_a, slot.datum_b = index, COMPARE[op], value, value_two
        number = self.resolve(name)
        result: int = self.lib.seccomp_rule_add_array(
            self.context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        return result

    def export(self) -> bytes:
        read_fd, write_fd = os.pipe()
        try:
            fd = os.memfd_create("bpf")
            assert self.lib.seccomp_export_bpf(self.context, fd) == 0
            size = os.lseek(fd, 0, os.SEEK_END)
            program = os.pread(fd, size, 0)
            os.close(fd)
            return program
        finally:
            os.close(read_fd)
            os.close(write_fd)

    def close(self) -> None:
        self.lib.seccomp_release(self.context)


@contextlib.contextmanager
def libseccomp(default: int, architectures: list[str]) -> Iterator[Libseccomp]:
    made = Libseccomp(default, architectures)
    try:
        yield made
    finally:
        made.close()


# Calls all of whose arguments are 64 bits wide, so that both compilers mean the same.
WIDE = ["mmap", "munmap", "mprotect", "brk", "mremap", "mincore", "unshare", "getcwd", "sethostname", "uname"]
NARROW = ["socket", "ioctl", "fcntl", "personality", "kill", "setns", "dup3"]
values = st.one_of(
    st.sampled_from([0, 1, 2, 38, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 38, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 8),
)
argument = st.tuples(st.integers(0, 5), st.sampled_from(sorted(COMPARE)), values, values)
arguments = st.lists(argument, max_size=3, unique_by=lambda each: each[0])
actions = st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_TRAP", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"])
# One rule a call: libseccomp 2.5 merges several into a tree that can lose one of them (arg0 == 0, or arg0 >= 2, or
# arg0 >= 0 and arg1 == 0, does not match 1, 0). tests/unit/runtime/test_seccomp.py has those, against a model.
rules = st.dictionaries(
    st.sampled_from(WIDE), st.tuples(actions, st.lists(arguments, min_size=1, max_size=1)), max_size=6
)


def profile_of(
    chosen: dict[str, tuple[str, list[list[tuple[int, str, int, int]]]]], **more: object
) -> dict[str, object]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,  # with ENOSYS as the default there is no third answer for newer calls
        "syscalls": [
            {
                "names": [name],
                "action": action,
                "args": [{"index": i, "op": op, "value": a, "valueTwo": b} for i, op, a, b in each],
            }
            for name, (action, alternatives) in chosen.items()
            for each in alternatives
        ],
        **more,
    }


def probes(
    chosen: dict[str, tuple[str, list[list[tuple[int, str, int, int]]]]], extra: list[int]
) -> list[tuple[int, ...]]:
    """Argument vectors around every value a profile names: what just matches and what just does not."""
    interesting = {0, 1, (1 << 64) - 1, *extra}
    for _, alternatives in chosen.values():
        for comparisons in alternatives:
            for _, _, value, value_two in comparisons:
                for number in (value, value_two, value & value_two):
                    interesting |= {number, number + 1, number - 1, number ^ (1 << 32), number & 0xFFFFFFFF}
    vectors = [tuple([number & ((1 << 64) - 1)] * 6) for number in sorted(interesting)]
    for _, alternatives in chosen.values():
        for comparisons in alternatives:
            exact = [0] * 6
            for index, op, value, value_two in comparisons:
                exact[index] = value_two & value if op == "SCMP_CMP_MASKED_EQ" else value
            vectors.append(tuple(exact))
            vectors.extend(tuple(v ^ (i == flip) for i, v in enumerate(exact)) for flip in range(6))
    return vectors


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chosen=rules, extra=st.lists(values, max_size=4), x86=st.booleans(), x32=st.booleans())
def test_random_profiles_answer_as_libseccomp(chosen, extra, x86, x32) -> None:
    architectures = ["SCMP_ARCH_X86_64", *(["SCMP_ARCH_X86"] if x86 else []), *(["SCMP_ARCH_X32"] if x32 else [])]
    ours = seccomp.compile_profile(profile_of(chosen, architectures=architectures), architecture="x86_64").code
    with libseccomp(ENOSYS, architectures) as oracle:
        for name, (action, alternatives) in chosen.items():
            for comparisons in alternatives:
                assert oracle.rule(seccomp.ACTIONS[action], name, comparisons) == 0
        theirs = oracle.export()
    numbers = [(NATIVE, syscalls.numbers("x86_64")[name]) for name in [*WIDE, "read"]]
    if x86:
        numbers += [(0x40000003, syscalls.numbers("x86")[name]) for name in [*WIDE, "read"]]
    # libseccomp takes x32 for a 32-bit architecture; its kernel calls are x86-64's and see 64 bits, so ours compare 64.
    small = all(max(a, b) < 1 << 32 for _, ways in chosen.values() for each in ways for _, _, a, b in each)
    if x32 and small:
        numbers += [(NATIVE, syscalls.numbers("x32")[name] | syscalls.X32_BIT) for name in [*WIDE, "read"]]
    for arch, number in numbers:
        for wide in probes(chosen, extra):
            vector = tuple(v & 0xFFFFFFFF for v in wide) if number & syscalls.X32_BIT else wide
            data = seccomp_data(number, arch, vector)
            assert run_classic(ours, data) == run_classic(theirs, data), (hex(arch), number, list(map(hex, vector)))


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NARROW), op=st.sampled_from(sorted(COMPARE)), value=st.integers(0, 0xFFFFFFFF), two=values)
def test_j06_int_arguments_answer_as_libseccomp_would_for_what_the_kernel_sees(name, op, value, two) -> None:
    """For a 32-bit argument our answer to any 64 bits is libseccomp's answer to the 32 that the kernel keeps."""
    two &= 0xFFFFFFFF
    chosen = {name: ("SCMP_ACT_ALLOW", [[(0, op, value, two)]])}
    ours = seccomp.compile_profile(profile_of(chosen), architecture="x86_64").code
    with libseccomp(ENOSYS, []) as oracle:
        assert oracle.rule(ALLOW, name, [(0, op, value, two)]) == 0
        theirs = oracle.export()
    number = syscalls.numbers("x86_64")[name]
    for low in {0, value, (value + 1) & 0xFFFFFFFF, (value - 1) & 0xFFFFFFFF, value & two, two}:
        wanted = run_classic(theirs, seccomp_data(number, NATIVE, (low,)))
        for high in (0, 1, 1 << 31, 0xFFFFFFFF):
            assert run_classic(ours, seccomp_data(number, NATIVE, (high << 32 | low,))) == wanted


def test_a_rule_without_arguments_wins_whatever_the_order() -> None:
    with_argument = {
        "names": ["mmap"],
        "action": "SCMP_ACT_TRAP",
        "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}],
    }
    without = {"names": ["mmap"], "action": "SCMP_ACT_ALLOW"}
    for order in ([with_argument, without], [without, with_argument]):
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": order}
        ours = seccomp.compile_profile(profile, architecture="x86_64").code
        with libseccomp(ENOSYS, []) as oracle:
            for rule in order:
                comparisons = [(0, "SCMP_CMP_EQ", 1, 0)] if "args" in rule else []
                assert oracle.rule(seccomp.ACTIONS[rule["action"]], "mmap", comparisons) == 0
            theirs = oracle.export()
        for value in (0, 1):
            data = seccomp_data(syscalls.numbers("x86_64")["mmap"], NATIVE, (value,))
            assert run_classic(ours, data) == run_classic(theirs, data) == ALLOW


def test_sockets_of_i386_are_covered_through_socketcall_as_by_libseccomp() -> None:
    names = ["bind", "recv", "sendmmsg", "semget", "shmctl", "msgrcv"]
    architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    chosen = {name: ("SCMP_ACT_ALLOW", [[]]) for name in names}
    ours = seccomp.compile_profile(profile_of(chosen, architectures=architectures), architecture="x86_64").code
    with libseccomp(ENOSYS, architectures) as oracle:
        for name in names:
            oracle.rule(ALLOW, name, [])
        theirs = oracle.export()
    for call in ("socketcall", "ipc", "bind", "semget"):
        for operation in range(30):
            data = seccomp_data(syscalls.numbers("x86")[call], 0x40000003, (operation,))
            assert run_classic(ours, data) == run_classic(theirs, data), (call, operation)


@pytest.mark.parametrize("architecture", sorted(TOKENS))
def test_every_number_is_the_one_libseccomp_knows(architecture) -> None:
    table = syscalls.numbers(seccomp.ARCHITECTURES[architecture][0])
    bit = syscalls.X32_BIT if architecture == "SCMP_ARCH_X32" else 0
    compared = 0
    with libseccomp(ENOSYS, []) as oracle:
        for name, number in table.items():
            theirs = oracle.resolve(name, TOKENS[architecture])
            if theirs >= 0:  # libseccomp has no number: -1, or a pseudo number below -100
                compared += 1
                assert theirs == number | bit, name
    assert compared > 280
