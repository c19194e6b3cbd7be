"""Device programs of cgroup v2: loading, attaching, asking which are attached.

Every call hands the kernel 256 zeroed bytes of attributes: some kernels (6.17 to 7.1) write a result
beyond the length they were told (opencontainers/cgroups#69). Compiling device rules is done elsewhere.
"""

from __future__ import annotations

import errno
import struct
from ctypes import addressof, byref, create_string_buffer, memmove, sizeof

from hutch.linux.abi import NR, BpfAttr
from hutch.linux.libc import syscall

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6

F_ALLOW_OVERRIDE = 1
F_ALLOW_MULTI = 2
F_REPLACE = 4

_LOG_BYTES = 1 << 16
_LOG_SHOWN = 2000
_MAX_PROGRAMS = 64  # per cgroup: BPF_CGROUP_MAX_PROGS

# What the program sees: struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }.
DEVCG_ACC_MKNOD, DEVCG_ACC_READ, DEVCG_ACC_WRITE = 1, 2, 4
DEVCG_DEV_BLOCK, DEVCG_DEV_CHAR = 1, 2


def _attr(packed: bytes) -> BpfAttr:
    attr = BpfAttr()
    memmove(addressof(attr), packed, len(packed))
    return attr


def _bpf(command: int, attr: BpfAttr) -> int:
    return syscall(NR.bpf, command, byref(attr), sizeof(attr))


def load_device_program(insns: bytes) -> int:
    """Load and verify a BPF_PROG_TYPE_CGROUP_DEVICE program.

    Args:
        insns: struct bpf_insn after struct bpf_insn, eight bytes each, machine order.

    Returns:
        Its descriptor, close-on-exec, the caller's to close: an attached program outlives it.

    Raises:
        OSError: EINVAL, EACCES (the verifier's last words are in the text), EPERM (no CAP_BPF).
    """
    if not insns or len(insns) % 8:
        raise OSError(errno.EINVAL, f"not a program: {len(insns)} bytes")
    code, license_text = create_string_buffer(insns, len(insns)), create_string_buffer(b"GPL")
    head = struct.pack("=IIQQ", _PROG_TYPE_CGROUP_DEVICE, len(insns) // 8, addressof(code), addressof(license_text))
    try:
        return _bpf(_PROG_LOAD, _attr(head))
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.EACCES):
            raise
        refusal = problem
    # Once more, for the reasons: a log makes a good load slower, and fails it when the log overflows.
    log = create_string_buffer(_LOG_BYTES)
    try:
        return _bpf(_PROG_LOAD, _attr(head + struct.pack("=IIQ", 1, _LOG_BYTES, addressof(log))))
    except OSError:
        reasons = log.value.decode("utf-8", "replace").strip().replace("\n", "; ")
        raise OSError(refusal.errno, f"{refusal.strerror} ({reasons[-_LOG_SHOWN:]})") from None


def attach(cgroup_fd: int, program_fd: int, flags: int = F_ALLOW_MULTI, *, replace_fd: int = -1) -> None:
    """Attach a device program to a cgroup; with `replace_fd` in that attached program's place, atomically.

    Raises:
        OSError: EPERM (an ancestor's flags forbid it), E2BIG (64 programs already), ENOENT (`replace_fd`
            is not attached), EINVAL (the cgroup has programs attached with other flags).
    """
    if replace_fd >= 0:
        flags |= F_REPLACE
    _bpf(_PROG_ATTACH, _attr(struct.pack("=IIIII", cgroup_fd, program_fd, _CGROUP_DEVICE, flags, max(replace_fd, 0))))


def detach(cgroup_fd: int, program_fd: int) -> None:
    """Detach a device program; ENOENT if it is not attached."""
    _bpf(_PROG_DETACH, _attr(struct.pack("=III", cgroup_fd, program_fd, _CGROUP_DEVICE)))


def query(cgroup_fd: int) -> list[int]:
    """The ids of the device programs attached to this very cgroup, the first that runs first."""
    ids = create_string_buffer(4 * _MAX_PROGRAMS)
    attr = _attr(struct.pack("=IIIIQI", cgroup_fd, _CGROUP_DEVICE, 0, 0, addressof(ids), _MAX_PROGRAMS))
    _bpf(_PROG_QUERY, attr)
    (count,) = struct.unpack_from("=I", bytes(attr), 24)
    return list(struct.unpack_from(f"={min(count, _MAX_PROGRAMS)}I", ids.raw))


def open_program(program_id: int) -> int:
    """A descriptor of a loaded program, close-on-exec, the caller's to close; ENOENT once it is gone."""
    return _bpf(_PROG_GET_FD_BY_ID, _attr(struct.pack("=I", program_id)))
