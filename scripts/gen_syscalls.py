#!/usr/bin/env python3
"""Write src/hutch/runtime/syscall_tables/: one module per architecture, from the kernel's installed headers.

    apt-get install linux-libc-dev linux-libc-dev-arm64-cross linux-libc-dev-armhf-cross gcc
    scripts/gen_syscalls.py           # writes; with --check only compares, and fails if they differ

Debian's headers may be older than the kernels hutch runs on: NEWER adds what came since. All of it has, since 5.0,
one number on every architecture (the kernel's scripts/syscall.tbl and arch/x86/entry/syscalls/syscall_64.tbl).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import textwrap
from pathlib import Path

TABLES = Path(__file__).resolve().parent.parent / "src" / "hutch" / "runtime" / "syscall_tables"

# architecture → (include folder, macros, header, what the numbers are relative to)
ARCHITECTURES: dict[str, tuple[str, list[str], str, int]] = {
    "x86_64": ("/usr/include/x86_64-linux-gnu", [], "asm/unistd_64.h", 0),
    "x86": ("/usr/include/x86_64-linux-gnu", [], "asm/unistd_32.h", 0),
    "x32": ("/usr/include/x86_64-linux-gnu", ["__X32_SYSCALL_BIT=0"], "asm/unistd_x32.h", 0),
    "aarch64": ("/usr/aarch64-linux-gnu/include", [], "asm/unistd.h", 0),
    "arm": ("/usr/arm-linux-gnueabihf/include", ["__ARM_EABI__"], "asm/unistd.h", 0),
}

NEWER: dict[str, int] = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
    "listns": 470,
}
ONLY: dict[str, dict[str, int]] = {
    "x86_64": {"uretprobe": 335, "uprobe": 336},
    # The private calls of ARM, which its header names __ARM_NR_….
    "arm": {"breakpoint": 0xF0001, "cacheflush": 0xF0002, "usr26": 0xF0003, "usr32": 0xF0004, "set_tls": 0xF0005},
}
# Bounds and bases that look like names.
NOT_CALLS = {"syscalls", "SYSCALL_MASK", "arch_specific_syscall", "SYSCALL_BASE", "OABI_SYSCALL_BASE"}


def numbers(architecture: str) -> dict[str, int]:
    """Ask the preprocessor for every __NR_ macro of a header, and evaluate each."""
    folder, macros, header, base = ARCHITECTURES[architecture]
    command = ["gcc", "-E", "-nostdinc", "-I", folder, *(f"-D{macro}" for macro in macros), "-x", "c", "-"]
    source = f"#include <{header}>\n"
    dump = subprocess.run([*command, "-dM"], input=source, check=True, capture_output=True, text=True).stdout
    names = sorted(set(re.findall(r"^#define __NR_(\w+) ", dump, re.MULTILINE)) - NOT_CALLS)
    source += "".join(f"@{name} __NR_{name}\n" for name in names)
    text = subprocess.run(command, input=source, check=True, capture_output=True, text=True).stdout
    found = {}
    for name, expression in re.findall(r"^@(\w+) (.+)$", text, re.MULTILINE):
        terms = [int(term, 0) for term in re.findall(r"0x[0-9a-fA-F]+|\d+", expression)]
        found[name.removeprefix("3264_")] = sum(terms) - base
    newest = max(number for number in found.values() if number < 0x1000)
    found.update({name: number for name, number in NEWER.items() if number > newest or name not in found})
    found.update(ONLY.get(architecture, {}))
    return found


def module(architecture: str) -> str:
    """Render a table: names in order, ``=N`` where the number is not the next one."""
    words, expected = [], 0
    for number, name in sorted((number, name) for name, number in numbers(architecture).items()):
        if number != expected:
            words.append(f"={number}")
        words.append(name)
        expected = number + 1
    body = textwrap.fill(" ".join(words), 118, break_long_words=False, break_on_hyphens=False)
    return f'"""System call numbers of {architecture}, by scripts/gen_syscalls.py."""\n\nTABLE = """\\\n{body}\n"""\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a table is not what the headers give")
    check = parser.parse_args().check
    TABLES.mkdir(exist_ok=True)
    stale = []
    for architecture in ARCHITECTURES:
        path, text = TABLES / f"{architecture}.py", module(architecture)
        if not path.exists() or path.read_text() != text:
            stale.append(architecture)
            if not check:
                path.write_text(text)
    if check and stale:
        print("differ from the headers:", *stale, file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
