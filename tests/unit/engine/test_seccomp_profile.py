"""The default seccomp profile against Docker's as data, and the reading of users' profiles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hutch.engine import seccomp_calls, seccomp_file, seccomp_profile
from hutch.errors import InvalidArgument, InvalidConfig, NotFound
from hutch.linux import seccomp as kernel
from hutch.runtime import seccomp, syscalls
from tests.support.bpf import run_classic, seccomp_data

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "specs" / "docker" / "seccomp-default.json"
needs_reference = pytest.mark.skipif(not REFERENCE.is_file(), reason="Docker's profile is not beside this checkout")

X86_64, X86 = 0xC000003E, 0x40000003
ALLOW, EPERM, ENOSYS = kernel.RET_ALLOW, kernel.RET_ERRNO | 1, kernel.RET_ERRNO | 38
DEFAULT_CAPS = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SYS_CHROOT"]


def program(profile):
    return seccomp.compile_profile(profile, architecture="x86_64").code


def answer(code, name, *args, arch=X86_64):
    number = name if isinstance(name, int) else syscalls.numbers("x86_64" if arch == X86_64 else "x86")[name]
    return run_classic(code, seccomp_data(number, arch, args))


@needs_reference
def test_the_groups_together_are_dockers_unconditional_list() -> None:
    document = json.loads(REFERENCE.read_text())
    always = {name for rule in document["syscalls"] if set(rule) <= {"names", "action"} for name in rule["names"]}
    always |= {n for rule in document["syscalls"] if "minKernel" in rule.get("includes", {}) for n in rule["names"]}
    # ioctl is allowed but for two commands, socketcall only where nothing else reaches sockets
    assert set(seccomp_calls.ALWAYS) == always - {"ioctl", "socketcall"}
    assert len(seccomp_calls.ALWAYS) == len(set(seccomp_calls.ALWAYS))


@needs_reference
@pytest.mark.parametrize(
    "capabilities", [[], DEFAULT_CAPS, ["CAP_SYS_ADMIN"], ["CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYSLOG"]]
)
def test_compat_allows_what_docker_allows(capabilities) -> None:
    theirs = program(
        seccomp_file.read_profile(str(REFERENCE), capabilities, architecture="amd64", kernel="6.1.0-13-amd64")
    )
    ours = program(seccomp_profile.default_profile(capabilities, architecture="amd64", compat=True))
    for arch, table in ((X86_64, "x86_64"), (X86, "x86")):
        for name, number in syscalls.numbers(table).items():
            for first in (0, 8, 16, 38, 39, 40, 41, 1 << 32 | 40, 0x10000000, 0x20000, 0xFFFFFFFF):
                args = (first, 0x5412)
                assert answer(ours, number, *args, arch=arch) == answer(theirs, number, *args, arch=arch), (name, args)


def test_j05_kernel_crypto_and_vm_sockets_are_denied_whatever_the_high_bits() -> None:
    code = program(seccomp_profile.default_profile(DEFAULT_CAPS, architecture="amd64"))
    for high in (0, 1 << 32, 1 << 63, 0xFFFFFFFF << 32):
        for family in (38, 40):
            assert answer(code, "socket", high | family) == EPERM
        for family in (1, 2, 10, 16, 17, 39, 41, 45):
            assert answer(code, "socket", high | family) == ALLOW
    for operation in range(1, 21):
        assert answer(code, "socketcall", operation, arch=X86) == EPERM


def test_j06_terminal_ioctls_that_type_for_others_are_denied() -> None:
    code = program(seccomp_profile.default_profile(DEFAULT_CAPS, architecture="amd64"))
    for high in (0, 1 << 32, 1 << 63):
        for command in range(0x5400, 0x5460):
            denied = command in {0x5412, 0x541C}
            assert answer(code, "ioctl", 0, high | command) == (EPERM if denied else ALLOW), hex(command)


def test_j07_dangerous_calls_fail_with_eperm_and_unknown_ones_with_enosys() -> None:
    code = program(seccomp_profile.default_profile(DEFAULT_CAPS, architecture="amd64"))
    denied = (
        "io_uring_setup io_uring_enter io_uring_register "
        "userfaultfd keyctl add_key request_key bpf perf_event_open "
        "open_by_handle_at fsconfig fsopen fsmount fspick move_mount open_tree mount "
        "mount_setattr umount2 "
        "unshare setns "
        "pivot_root kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff syslog "
        "acct quotactl nfsservctl lookup_dcookie vhangup iopl ioperm settimeofday clock_settime kcmp pidfd_getfd"
    ).split()
    for name in denied:
        assert answer(code, name) == EPERM, name
    assert answer(code, "clone3") == ENOSYS
    for number in (470, 500, 1000, 0x3FFFFFFF):
        assert answer(code, number) == ENOSYS
    assert answer(code, "chroot") == ALLOW  # its capability was given
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(code, "clone", flag | 17) == EPERM
        assert answer(code, "clone", 1 << 32 | flag | 17) == EPERM
    assert answer(code, "clone", 0x3D0F00) == ALLOW  # what pthread_create passes
    for persona in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):
        assert answer(code, "personality", persona) == ALLOW
    assert answer(code, "personality", 0x0040000) == EPERM  # ADDR_NO_RANDOMIZE


@pytest.mark.parametrize("capability", sorted(seccomp_calls.BY_CAPABILITY))
def test_a_capability_brings_its_calls(capability) -> None:
    without = program(seccomp_profile.default_profile([], architecture="amd64"))
    given = program(seccomp_profile.default_profile([capability], architecture="amd64"))
    known = syscalls.numbers("x86_64")
    for name in seccomp_calls.BY_CAPABILITY[capability]:
        if name in known and name != "clone":
            assert answer(without, name) in {EPERM, ENOSYS}, name
            assert answer(given, name) == ALLOW, name


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "386", "arm"])
def test_every_architecture_has_a_profile_for_itself_only(architecture) -> None:
    profile = seccomp_profile.default_profile([], architecture=architecture)
    assert len(profile["architectures"]) == 1
    machine = "x86_64" if architecture in {"amd64", "386"} else "aarch64"
    assert seccomp.compile_profile(profile, architecture=machine).code
    with pytest.raises(InvalidArgument, match="no default profile for architecture 'vax'"):
        seccomp_profile.default_profile([], architecture="vax")


def write(tmp_path, document):
    path = tmp_path / "profile.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def read(path, capabilities=(), architecture="amd64", kernel_release="5.15.0-91-generic"):
    return seccomp_file.read_profile(path, capabilities, architecture=architecture, kernel=kernel_release)


def test_rules_of_dockers_format_count_by_capability_architecture_and_kernel(tmp_path) -> None:
    path = write(
        tmp_path,
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "comment": "always"},
                {"name": "write", "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
                {
                    "names": ["chroot"],
                    "action": "SCMP_ACT_ALLOW",
                    "includes": {"caps": ["CAP_SYS_CHROOT", "CAP_CHOWN"]},
                },
                {"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["rmdir"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                {"names": ["creat"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "5.16"}},
                {"names": ["link"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "5.16"}},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errno": "ENOENT"},
            ],
        },
    )

    def names(*args, **more):
        return [rule["names"][0] for rule in read(path, *args, **more)["syscalls"]]

    assert names() == ["read", "write", "mkdir", "link", "bpf"]
    assert names(["CAP_SYS_CHROOT"]) == ["read", "write", "mkdir", "link", "bpf"]
    assert names(["CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_SYS_ADMIN"]) == ["read", "write", "chroot", "link", "bpf"]
    assert names(kernel_release="5.16.1+") == ["read", "write", "mkdir", "creat", "bpf"]
    assert "rmdir" in names(architecture="arm64")
    assert read(path)["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert read(path)["syscalls"][-1]["errnoRet"] == 2


def test_a_profile_in_the_ocis_form_is_taken_as_it_is(tmp_path) -> None:
    oci = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 2,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {
                "names": ["ioctl"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 1, "value": 5, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    assert read(write(tmp_path, oci)) == oci


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "input data was truncated"),
        ("[]", "expected `object`"),
        ({}, "missing required field `defaultAction`"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultAktion": 1}, "unknown field `defaultAktion`"),
        ({"defaultAction": "SCMP_ACT_SMILE"}, "unknown action 'SCMP_ACT_SMILE'"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "x"}]},
            "both",
        ),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}, "names no system call"),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"action": "SCMP_ACT_ERRNO", "name": "a", "errno": "EHM"}],
            },
            "not an error number",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"action": "SCMP_ACT_ALLOW", "name": "read", "includes": {"minKernel": "new"}}],
            },
            "not a kernel version",
        ),
        (" " * (1 << 20) + "{}", "larger than"),
        ("[" * 100_000, "expected"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_with_its_reason(tmp_path, document, message) -> None:
    with pytest.raises(InvalidConfig, match=message):
        read(write(tmp_path, document))


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.json: no such file or directory"):
        seccomp_profile.for_container(str(tmp_path / "nowhere.json"), [])
