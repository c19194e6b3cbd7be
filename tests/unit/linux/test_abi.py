from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess

import pytest

from hutch.linux import abi, caps, mount, namespaces, paths, process, pty, rlimits, seccomp

HEADERS = """
#include <stddef.h>
#include <stdio.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/personality.h>
#include <linux/resource.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <linux/seccomp.h>
#include <asm/ioctls.h>
"""

# Newer than the oldest headers we build against, or not in the kernel's headers but in libc's.
ELSEWHERE = {"MOVE_MOUNT_BENEATH"}
PREFIXES = {
    mount: ("", r"(MS|MOVE_MOUNT|MOUNT_ATTR|OPEN_TREE|FSPICK)_"),
    paths: ("", r"RESOLVE_"),
    namespaces: ("", r"CLONE_"),
    seccomp: ("SECCOMP_", r"(FILTER_FLAG|RET|ADDFD_FLAG|USER_NOTIF_FLAG)_"),
    abi: ("", r"(AT_|AUDIT_ARCH_|.*_MAGIC$)"),
}
LAYOUTS = {
    abi.MountAttr: "struct mount_attr",
    abi.OpenHow: "struct open_how",
    abi.CapHeader: "struct __user_cap_header_struct",
    abi.CapData: "struct __user_cap_data_struct",
    abi.Rlimit: "struct rlimit64",
    abi.SchedAttr: "struct sched_attr",
    abi.SeccompData: "struct seccomp_data",
    abi.SeccompNotif: "struct seccomp_notif",
    abi.SeccompNotifResp: "struct seccomp_notif_resp",
    abi.SeccompNotifAddfd: "struct seccomp_notif_addfd",
}
FIELDS = {
    "struct rlimit64": {"soft": "rlim_cur", "hard": "rlim_max"},
    "struct sched_attr": {
        name: f"sched_{name}"
        for name in ("policy", "flags", "nice", "priority", "runtime", "deadline", "period", "util_min", "util_max")
    },
}

needs_compiler = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")


def compiled(tmp_path, expressions: dict[str, str]) -> dict[str, int]:
    """The values that the kernel's own headers give to C expressions."""
    lines = "".join(
        f'printf("%s %llu\\n", "{key}", (unsigned long long)({text}));' for key, text in expressions.items()
    )
    source = tmp_path / "values.c"
    source.write_text(f"{HEADERS}int main(void) {{ {lines} return 0; }}\n")
    program = tmp_path / "values"
    subprocess.run(["gcc", "-w", "-o", program, source], check=True)
    out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {key: int(value) for key, value in (line.split() for line in out.splitlines())}


@needs_compiler
def test_constants_are_the_headers(tmp_path):
    ours = {}
    for module, (prefix, pattern) in PREFIXES.items():
        for name, value in vars(module).items():
            if re.match(pattern, name) and isinstance(value, int) and name not in ELSEWHERE:
                ours[prefix + name] = value
    assert len(ours) > 80
    ours |= caps.BITS
    ours |= rlimits.NUMBERS
    ours |= {"TIOCGPTPEER": pty._TIOCGPTPEER, "TIOCSPTLCK": pty._TIOCSPTLCK, "TIOCGPTN": pty._TIOCGPTN}
    ours |= {
        "SECCOMP_IOCTL_NOTIF_RECV": seccomp._IOCTL_RECV,
        "SECCOMP_IOCTL_NOTIF_SEND": seccomp._IOCTL_SEND,
        "SECCOMP_IOCTL_NOTIF_ID_VALID": seccomp._IOCTL_ID_VALID,
        "SECCOMP_IOCTL_NOTIF_ADDFD": seccomp._IOCTL_ADDFD,
    }
    theirs = compiled(tmp_path, {name: f"(unsigned int)({name})" for name in ours})
    assert {name: value & 0xFFFFFFFF for name, value in ours.items()} == theirs


@needs_compiler
def test_structs_are_laid_out_as_the_headers(tmp_path):
    ours, expressions = {}, {}
    for struct, name in LAYOUTS.items():
        label = name.replace(" ", "_")
        ours[label], expressions[label] = ctypes.sizeof(struct), f"sizeof({name})"
        for field, _ in struct._fields_:
            theirs = FIELDS.get(name, {}).get(field, field)
            ours[f"{label}.{field}"] = getattr(struct, field).offset
            expressions[f"{label}.{field}"] = f"offsetof({name}, {theirs})"
    assert compiled(tmp_path, expressions) == ours


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_system_call_numbers_are_the_headers(machine, header):
    if not os.path.exists(header):
        pytest.skip(f"{header} is not installed")
    with open(header) as file:
        theirs = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", file.read())}
    numbers = abi.numbers(machine)
    ours = {name: getattr(numbers, name) for name in dir(numbers) if not name.startswith("_")}
    newer = {"setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466}
    assert {name: theirs.get(name, newer.get(name)) for name in ours} == ours
    assert len(ours) > 30


def test_unknown_machine_says_so_at_the_first_call():
    numbers = abi.numbers("sparc64")
    with pytest.raises(OSError, match=r"not known: sparc64") as caught:
        numbers.openat2  # noqa: B018
    assert caught.value.errno == errno.ENOSYS


def test_bpf_attributes_are_256_bytes():
    assert ctypes.sizeof(abi.BpfAttr) == 256


def test_scheduling_names_are_pythons():
    ours = {name: value for name, value in process.SCHED_POLICIES.items() if hasattr(os, name)}
    assert ours == {name: getattr(os, name) for name in ours}
    assert len(ours) >= 5
