"""The seccomp compiler: what it refuses, and its programs against a plain model of what profiles mean."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hutch.errors import InvalidConfig, NotSupported
from hutch.linux import seccomp as kernel
from hutch.runtime import classic_bpf, seccomp, syscalls
from tests.support.bpf import run_classic, seccomp_data

X86_64, X86, ARM64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
EPERM, ENOSYS = kernel.RET_ERRNO | 1, kernel.RET_ERRNO | 38
CALLS = syscalls.numbers("x86_64")


def answer(profile, name, *args, arch=X86_64, machine="x86_64"):
    table = {X86_64: "x86_64", X86: "x86", ARM64: "aarch64", ARM: "arm"}[arch]
    number = name if isinstance(name, int) else syscalls.numbers(table)[name]
    code = seccomp.compile_profile(profile, architecture=machine).code
    return run_classic(code, seccomp_data(number, arch, args))


def allow(*names, args=None, action="SCMP_ACT_ALLOW", **more):
    rule = {"names": list(names), "action": action, **more}
    return {**rule, "args": args} if args else rule


def deny_all(*rules, **more):
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **more}


COMPARE = {
    "SCMP_CMP_NE": lambda x, a, b: x != a,
    "SCMP_CMP_LT": lambda x, a, b: x < a,
    "SCMP_CMP_LE": lambda x, a, b: x <= a,
    "SCMP_CMP_EQ": lambda x, a, b: x == a,
    "SCMP_CMP_GE": lambda x, a, b: x >= a,
    "SCMP_CMP_GT": lambda x, a, b: x > a,
    "SCMP_CMP_MASKED_EQ": lambda x, a, b: x & a == b & a,
}


def model(profile, name, args):
    """What a profile means, said slowly: runc's and libseccomp's rules in the module's docstring."""
    default = seccomp.ACTIONS[profile["defaultAction"]] | profile.get("defaultErrnoRet", 0)
    mine = [rule for rule in profile["syscalls"] if name in rule["names"]]
    for rule in mine:
        if not rule.get("args"):
            return seccomp.ACTIONS[rule["action"]]
    for rule in mine:
        indexes = [arg["index"] for arg in rule["args"]]
        results = []
        for arg in rule["args"]:
            mask = 0xFFFFFFFF if syscalls.is_int_argument(name, arg["index"]) else (1 << 64) - 1
            value, two, x = arg["value"] & mask, arg["valueTwo"] & mask, args[arg["index"]] & mask
            results.append(COMPARE[arg["op"]](x, value, two))
        if any(results) if len(set(indexes)) < len(indexes) else all(results):
            return seccomp.ACTIONS[rule["action"]]
    return default


values = st.one_of(
    st.integers(0, 4),
    st.sampled_from([38, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, (1 << 64) - 1]),
    st.integers(0, 2**64 - 1),
)
arguments = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "op": st.sampled_from(sorted(COMPARE)), "value": values, "valueTwo": values}
)
rules = st.lists(
    st.builds(
        lambda names, action, args: {"names": names, "action": action, "args": args},
        st.lists(st.sampled_from(["read", "mmap", "socket", "ioctl", "unshare", "futex_wake"]), min_size=1, max_size=3),
        st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_TRAP", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"]),
        st.lists(arguments, max_size=4),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(chosen=rules, vectors=st.lists(st.tuples(*[values] * 6), min_size=1, max_size=6))
def test_random_rules_mean_what_the_model_says(chosen, vectors) -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": chosen}
    code = seccomp.compile_profile(profile, architecture="x86_64").code
    exact = [tuple(arg["value"] for _ in range(6)) for rule in chosen for arg in rule["args"]]
    for name in ("read", "mmap", "socket", "ioctl", "unshare", "futex_wake", "write"):
        for vector in vectors + exact:
            assert run_classic(code, seccomp_data(CALLS[name], X86_64, vector)) == model(profile, name, vector)


@pytest.mark.parametrize(
    ("action", "more", "value"),
    [
        ("SCMP_ACT_ALLOW", {}, 0x7FFF0000),
        ("SCMP_ACT_LOG", {}, 0x7FFC0000),
        ("SCMP_ACT_TRACE", {}, 0x7FF00001),
        ("SCMP_ACT_TRACE", {"errnoRet": 7}, 0x7FF00007),
        ("SCMP_ACT_NOTIFY", {}, 0x7FC00000),
        ("SCMP_ACT_ERRNO", {"errnoRet": 4095}, 0x00050FFF),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, 0x00050000),
        ("SCMP_ACT_TRAP", {}, 0x00030000),
        ("SCMP_ACT_KILL", {}, 0),
        ("SCMP_ACT_KILL_THREAD", {}, 0),
        ("SCMP_ACT_KILL_PROCESS", {}, 0x80000000),
    ],
)
def test_every_action_has_the_kernels_value(action, more, value) -> None:
    assert answer(
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [allow("mkdir", action=action, **more)]}, "mkdir"
    ) == (value)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"defaultAction": "SCMP_ACT_WISH"}, "unknown action 'SCMP_ACT_WISH'"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "cannot be the default"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "between 0 and 4095"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "takes no errnoRet"),
        (deny_all(allow("write", action="SCMP_ACT_NOTIFY")), "cannot be used for write"),
        (deny_all(allow("read", errnoRet=2)), "takes no errnoRet"),
        (deny_all(architectures=["SCMP_ARCH_VAX"]), "unknown architecture 'SCMP_ARCH_VAX'"),
        (deny_all(flags=["SECCOMP_FILTER_FLAG_HOPE"]), "unknown flag"),
        (deny_all(allow("read", args=[{"index": 6, "op": "SCMP_CMP_EQ", "value": 0}])), "no argument 6"),
        (deny_all(allow("read", args=[{"index": 0, "op": "SCMP_CMP_IS", "value": 0}])), "unknown operator"),
        (deny_all(allow("read", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": 1 << 64}])), "not a 64-bit"),
    ],
)
def test_a_bad_profile_is_refused_with_its_reason(profile, message) -> None:
    with pytest.raises(InvalidConfig, match=message):
        seccomp.compile_profile(profile, architecture="x86_64")


def test_an_unknown_machine_is_not_supported() -> None:
    with pytest.raises(NotSupported, match="riscv64"):
        seccomp.compile_profile(deny_all(), architecture="riscv64")


def test_unknown_names_are_ignored_and_reported() -> None:
    program = seccomp.compile_profile(deny_all(allow("read", "frobnicate", "chown32")), architecture="x86_64")
    assert program.unknown == ("frobnicate", "chown32")
    assert answer(deny_all(allow("read", "frobnicate")), "read") == kernel.RET_ALLOW


def test_calls_newer_than_the_profile_are_not_implemented() -> None:
    profile = deny_all(allow("read", "openat2"))
    assert answer(profile, "mount") == EPERM
    assert answer(profile, "openat2") == kernel.RET_ALLOW
    assert answer(profile, "pidfd_getfd") == ENOSYS
    assert answer(profile, 5000) == ENOSYS
    assert answer({**profile, "defaultAction": "SCMP_ACT_KILL_PROCESS"}, 5000) == ENOSYS
    assert answer({**profile, "defaultAction": "SCMP_ACT_LOG"}, 5000) == kernel.RET_LOG
    assert answer({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [allow("read", action="SCMP_ACT_TRAP")]}, 5000) == (
        kernel.RET_ALLOW
    )


def test_a_foreign_architecture_gets_nothing() -> None:
    """J6: the number of an allowed x86-64 call is another call on i386 and x32."""
    profile = deny_all(allow("read", "write", "execve"))
    for number in range(450):
        assert answer(profile, number, arch=X86) == EPERM
        assert answer(profile, number | syscalls.X32_BIT) == EPERM
    assert answer({"defaultAction": "SCMP_ACT_ALLOW"}, "read", arch=X86) == kernel.RET_KILL_PROCESS
    assert answer({"defaultAction": "SCMP_ACT_ALLOW"}, 1 | syscalls.X32_BIT) == kernel.RET_KILL_PROCESS
    assert answer(profile, 0xFFFFFFFF) == EPERM  # what a tracer writes to skip a call; no architecture's


def test_subarchitectures_have_their_own_numbers() -> None:
    both = deny_all(allow("getpid"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    assert answer(both, "getpid") == answer(both, "getpid", arch=X86) == kernel.RET_ALLOW
    assert answer(both, CALLS["getpid"] | syscalls.X32_BIT) == kernel.RET_ALLOW
    assert answer(both, 10, arch=X86) == EPERM  # unlink there
    assert answer(both, 39, arch=X86) == ENOSYS  # mkdir there, after getpid
    arm = deny_all(allow("getpid", "cacheflush"), architectures=["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    assert answer(arm, "getpid", arch=ARM64, machine="aarch64") == kernel.RET_ALLOW
    assert answer(arm, "getpid", arch=ARM, machine="aarch64") == kernel.RET_ALLOW
    assert answer(arm, 0xF0002, arch=ARM, machine="aarch64") == kernel.RET_ALLOW
    assert answer(arm, 0xF0003, arch=ARM, machine="aarch64") == EPERM
    assert answer(arm, "mkdir", arch=ARM, machine="aarch64") == ENOSYS  # newer than getpid, by number


def test_flags_and_listener() -> None:
    assert seccomp.compile_profile(deny_all(), architecture="x86_64").flags == kernel.FILTER_FLAG_SPEC_ALLOW
    assert seccomp.compile_profile(deny_all(flags=[]), architecture="x86_64").flags == 0
    names = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    plain = seccomp.compile_profile(deny_all(flags=names), architecture="x86_64")
    assert (plain.flags, plain.listener) == (kernel.FILTER_FLAG_TSYNC | kernel.FILTER_FLAG_LOG, False)
    heard = seccomp.compile_profile(
        deny_all(allow("mkdir", action="SCMP_ACT_NOTIFY"), flags=names), architecture="x86_64"
    )
    assert heard.listener
    assert heard.flags == 1 | 2 | 8 | 16 | 32


def test_far_jumps_and_the_kernels_limit() -> None:
    """Hundreds of calls with arguments: jumps cross more than the 255 instructions that a conditional one reaches."""
    names = sorted(CALLS)[:150]
    rules = [
        allow(name, args=[{"index": 1, "op": "SCMP_CMP_EQ", "value": (i << 32) + i, "valueTwo": 0}])
        for i, name in enumerate(names)
    ]
    code = seccomp.compile_profile(deny_all(*rules, defaultErrnoRet=38), architecture="x86_64").code
    assert len(code) // 8 > 600
    for i, name in enumerate(names):
        wide = not syscalls.is_int_argument(name, 1)
        assert run_classic(code, seccomp_data(CALLS[name], X86_64, (0, (i << 32) + i))) == kernel.RET_ALLOW
        assert run_classic(code, seccomp_data(CALLS[name], X86_64, (0, (i << 32) + i + 1))) == ENOSYS
        other = run_classic(code, seccomp_data(CALLS[name], X86_64, (0, ((i + 1) << 32) + i)))
        assert other == (ENOSYS if wide else kernel.RET_ALLOW)
    many = [
        allow(name, args=[{"index": i, "op": "SCMP_CMP_GE", "value": i + 1} for i in range(6)])
        for name in sorted(CALLS)
    ]
    with pytest.raises(InvalidConfig, match="the kernel takes 4096"):
        seccomp.compile_profile(deny_all(*many), architecture="x86_64")


def test_the_search_is_short() -> None:
    """A call costs what a comparison costs, times the logarithm of the profile, not times its length."""
    profile = deny_all(allow(*[name for name in CALLS if CALLS[name] % 2]))
    code = seccomp.compile_profile(profile, architecture="x86_64").code
    insns = list(struct.iter_unpack("<HBBI", code))
    for number in range(400):
        steps, at = 0, 0
        data = seccomp_data(number, X86_64, ())
        accumulator = 0
        while insns[at][0] != 0x06:
            op, yes, no, k = insns[at]
            at += 1
            steps += 1
            if op == 0x20:
                accumulator = struct.unpack_from("<I", data, k)[0]
            elif op == 0x05:
                at += k
            else:
                holds = accumulator == k if op == 0x15 else accumulator >= k
                at += yes if holds else no
        assert steps <= 16


def test_assembler_keeps_far_returns_and_blocks_reachable() -> None:
    code = classic_bpf.Assembler()
    far = code.ret(1)
    block = code.load(classic_bpf.NUMBER, code.equal(7, code.ret(2), far))
    position = code.ret(3)
    for value in range(700):
        position = code.equal(1000 + value, block if value % 2 else far, position)
    code.load(classic_bpf.NUMBER, position)
    program = code.bytes()
    assert run_classic(program, seccomp_data(1001, X86_64, ())) == 1
    assert run_classic(program, seccomp_data(1698, X86_64, ())) == 1
    assert run_classic(program, seccomp_data(9, X86_64, ())) == 3
