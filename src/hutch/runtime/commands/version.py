"""--version, in the shape that dockerd and podman read runc's in."""

from __future__ import annotations

import sys

from hutch import __version__

SPEC_VERSION = "1.3.0"
"""The newest version of the OCI runtime specification whose properties are all known here."""


def version_text() -> str:
    """`hutch-oci version`, the specification's version and the interpreter's."""
    python = ".".join(map(str, sys.version_info[:3]))
    return f"hutch-oci version {__version__}\nspec: {SPEC_VERSION}\npython: {python}\n"
