"""Platforms: ``os/architecture[/variant]``, as images and users write them.

OCI image-spec image-index.md; the aliases and the order of variants are those of Go's and
Docker's world, where an image of an older ARM or x86-64 variant runs on a newer one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import msgspec

from hutch.errors import InvalidArgument

_WORD = re.compile(r"\A[a-z0-9_.-]{1,32}\Z")
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "ppc64el": ("ppc64le", ""),
}
_BASELINE = {"arm64": "v8", "arm": "v7", "amd64": "v1"}  # what no variant means
_KNOWN = frozenset(
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x sparc64 wasm".split()
)


class Platform(msgspec.Struct, frozen=True, kw_only=True, rename="lower"):
    """The operating system and processor an image is for."""

    architecture: str
    os: str
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def normalised(self) -> Platform:
        """With aliases resolved and the baseline variant left out (``aarch64/v8`` is ``arm64``)."""
        architecture, variant = _ARCHITECTURES.get(self.architecture.lower(), (self.architecture.lower(), ""))
        variant = self.variant.lower() or variant
        if variant[:1].isdigit():
            variant = f"v{variant}"
        if architecture != "arm" and variant == _BASELINE.get(architecture):
            variant = ""
        elif architecture == "arm" and not variant:
            variant = _BASELINE["arm"]
        return msgspec.structs.replace(self, os=self.os.lower(), architecture=architecture, variant=variant)


def parse(text: str) -> Platform:
    """Parse ``--platform``: ``os/architecture[/variant]``, an architecture, or an operating system.

    Raises:
        InvalidArgument: more than three parts, or characters no platform has.
    """
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(_WORD.match(part) for part in parts):
        raise InvalidArgument(f"platform {text[:80]!r}: not os/architecture[/variant]")
    if len(parts) == 1:
        word = parts[0]
        if word in _KNOWN or word in _ARCHITECTURES:
            return Platform(os="linux", architecture=word).normalised()
        if word not in ("linux", "windows", "darwin", "freebsd"):
            raise InvalidArgument(f"platform {text[:80]!r}: unknown operating system or architecture")
        return msgspec.structs.replace(host(), os=word)
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "").normalised()


def host() -> Platform:
    """The platform of this machine."""
    return Platform(os="linux", architecture=os.uname().machine).normalised()


def preference(wanted: Platform, offered: Platform) -> int | None:
    """How well an image of platform `offered` runs where `wanted` is asked for.

    Returns:
        None if it does not; else a number, lowest is best.
    """
    wanted, offered = wanted.normalised(), offered.normalised()
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return None
    if wanted.variant == offered.variant:
        return 0
    distance = _level(wanted) - _level(offered)
    return distance if distance > 0 else None


def choose(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """Return the index of the best of `offered` for `wanted`, the first among equals, or None."""
    ranked = [
        (rank, index)
        for index, platform in enumerate(offered)
        if platform is not None and (rank := preference(wanted, platform)) is not None
    ]
    return min(ranked)[1] if ranked else None


def _level(platform: Platform) -> int:
    """The number in a variant (v7 is 7); a variant without one equals nothing but itself."""
    variant = platform.variant or _BASELINE.get(platform.architecture, "")
    return int(variant[1:]) if variant[1:].isdigit() and len(variant) <= 3 else 10**6
