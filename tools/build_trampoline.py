"""Compile the programs in C into modules of bytes: the runtime's trampoline, and the init of --init.

    python tools/build_trampoline.py            # needs gcc and aarch64-linux-gnu-gcc

Only the bytes of the one loadable segment are kept; section headers are dropped.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src/hutch"
SOURCE = PACKAGE / "runtime/trampoline.c"
PROGRAMS = {SOURCE: "The trampoline's", PACKAGE / "engine/container_init.c": "The container init's"}
COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
FLAGS = (
    "-Os -std=c11 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie "
    "-nostdlib -static -no-pie -s -Wl,--build-id=none,-z,noseparate-code,-z,norelro,-z,max-page-size=65536"
).split()
_PT_LOAD = 1


def compile_image(machine: str, source: Path = SOURCE) -> bytes:
    """Return the loadable bytes of a program for one machine, as `uname -m` names it."""
    extra = ["-fcf-protection=none"] if machine == "x86_64" else ["-mno-outline-atomics"]
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "trampoline")
        subprocess.run([COMPILERS[machine], *FLAGS, *extra, "-o", output, source], check=True)
        elf = bytearray(output.read_bytes())
    count = struct.unpack_from("<H", elf, 56)[0]
    for at in range(64, 64 + 56 * count, 56):
        if struct.unpack_from("<I", elf, at)[0] == _PT_LOAD:
            size = struct.unpack_from("<Q", elf, at + 32)[0]
            break
    struct.pack_into("<Q", elf, 40, 0)  # e_shoff
    struct.pack_into("<HH", elf, 60, 0, 0)  # e_shnum, e_shstrndx
    return bytes(elf[:size])


def main() -> None:
    """Write the modules of images."""
    for source, title in PROGRAMS.items():
        lines = [f'"""{title} machine code; made by tools/build_trampoline.py from {source.name}."""\n']
        lines += ["# fmt: off", "IMAGES = {"]
        for machine in COMPILERS:
            image = compile_image(machine, source).hex()
            lines.append(f'    "{machine}": bytes.fromhex(')
            lines += [f'        "{image[at : at + 96]}"' for at in range(0, len(image), 96)]
            lines.append("    ),")
        lines.append("}\n")
        source.with_name(f"{source.stem}_image.py").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
