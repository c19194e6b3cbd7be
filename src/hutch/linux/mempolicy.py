"""NUMA memory policy: from which nodes the kernel takes a thread's memory. It outlives execve and goes to children."""

from __future__ import annotations

import struct
from ctypes import create_string_buffer

from hutch.linux.abi import NR
from hutch.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

# OCI runtime-spec config-linux.md#memory-policy: mode and flags → the kernel's numbers.
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}

_WORD_BITS = 64


def set_mempolicy(mode: int, nodes: Collection[int]) -> None:
    """Set the calling thread's policy.

    Args:
        mode: of MODES, with FLAGS or'ed to it.
        nodes: numbers of nodes; none for what needs none.

    Raises:
        OSError: EINVAL (no such node or none of ours, a mode this kernel has not got, a mode without its nodes or with
            nodes it does not take), ENOSYS (a kernel without NUMA).
    """
    if not nodes:
        syscall(NR.set_mempolicy, mode, None, 0)
        return
    words = [0] * (max(nodes) // _WORD_BITS + 1)
    for node in nodes:
        words[node // _WORD_BITS] |= 1 << node % _WORD_BITS
    mask = create_string_buffer(struct.pack(f"={len(words)}Q", *words), 8 * len(words))
    syscall(NR.set_mempolicy, mode, mask, len(words) * _WORD_BITS + 1)  # the kernel counts one bit less
