"""Every error hutch raises on purpose.

    HutchError                       500, exit 125
    ├─ InvalidArgument               400
    │  ├─ InvalidReference           an image name outside Docker's grammar
    │  ├─ InvalidConfig              config.json, image config or configuration file
    │  └─ InvalidLayer               a layer or archive that is malformed, hostile or over a limit
    ├─ Unauthorized                  401
    ├─ PermissionDenied              403
    ├─ NotFound                      404
    │  ├─ ContainerNotFound
    │  ├─ ImageNotFound
    │  └─ BlobNotFound
    ├─ Conflict                      409
    │  ├─ AlreadyExists
    │  └─ InvalidState               have, want
    ├─ NotSupported                  501  the kernel or the host lacks it
    │  └─ NoUserNamespaces            denied to this user
    ├─ Unavailable                   503
    │  └─ RegistryUnavailable
    ├─ ContainerError                500  exit_status, command, image, stderr
    ├─ ExecTimeout                   504  stdout, stderr
    ├─ OutputTooLarge                413
    └─ Internal                      500
       ├─ DigestMismatch             wanted, got
       └─ ContainerSetupFailed       step, errno, path

The *kind* (the first level) decides the HTTP status and the exit code; the subject is a subclass.
`hutch.linux` raises OSError only; `hutch.runtime` adds the step; nothing is logged where it is
raised; only `hutch.cli` and `hutch-oci` print. Messages are lower case without a full stop, the
object first, then the cause: ``mount /proc in rootfs: operation not permitted``.

This module is on the runtime's start-up path: it imports nothing but `errno` and `os`.
"""

from __future__ import annotations

import errno
import os


class HutchError(Exception):
    """The root of the tree.

    Attributes:
        http_status: what the Docker API answers with.
        exit_code: what the command line ends with.
        hint: one sentence on what to do about it, or an empty string.
    """

    http_status = 500
    exit_code = 125

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidArgument(HutchError):
    """The request itself is wrong; repeating it cannot help."""

    http_status = 400


class InvalidReference(InvalidArgument):
    """An image name that is not in Docker's reference grammar."""


class InvalidConfig(InvalidArgument):
    """A config.json, an image configuration or a configuration file that does not hold together."""


class InvalidLayer(InvalidArgument):
    """A layer or archive that is malformed, climbs out of its root or goes over a limit."""


class Unauthorized(HutchError):
    """No credentials, or wrong ones."""

    http_status = 401


class PermissionDenied(HutchError):
    """The credentials are known and are not enough."""

    http_status = 403


class NotFound(HutchError):
    """The thing named does not exist."""

    http_status = 404


class ContainerNotFound(NotFound):
    """No container of that id or name."""


class ImageNotFound(NotFound):
    """No image of that name, here or in the registry."""


class BlobNotFound(NotFound):
    """No content of that digest."""


class Conflict(HutchError):
    """The request is right and the state of things forbids it."""

    http_status = 409


class AlreadyExists(Conflict):
    """The name or id is taken."""


class InvalidState(Conflict):
    """The thing exists in another state than the request needs.

    Args:
        have: the state it is in.
        want: the state or states the request needs.
    """

    def __init__(self, message: str, *, have: str, want: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.have = have
        self.want = want


class NotSupported(HutchError):
    """The kernel, the host or this version of hutch lacks a feature; the message names it."""

    http_status = 501


class NoUserNamespaces(NotSupported):
    """User namespaces are denied, so that an ordinary user can neither unpack layers nor run containers."""

    @classmethod
    def because(cls, number: int) -> NoUserNamespaces:
        """The error for an unshare(2) that failed with the errno `number`, with where to look."""
        cause = os.strerror(number).lower()
        hint = (
            "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, or the seccomp filter of "
            "a container around this one forbids them"
        )
        if number in (errno.ENOSPC, errno.EUSERS):
            cause = "there may be no more of them"
            hint = "ask the administrator to raise user.max_user_namespaces"
        elif number == errno.EINVAL:
            hint = "the kernel was built without CONFIG_USER_NS"
        return cls(f"user namespaces are not available: {cause}", hint=hint)


class Unavailable(HutchError):
    """Something outside did not answer; trying again later may help."""

    http_status = 503


class RegistryUnavailable(Unavailable):
    """The registry answered 429 or 5xx, or the connection was lost, after the last retry."""


class ContainerError(HutchError):
    """A container that was run to its end did not end well.

    Args:
        container: its name.
        exit_status: as a shell has it: 128 and the number for a signal.
        command: what ran.
        image: what it was made from.
        stderr: what it wrote there.
    """

    def __init__(self, container: str, exit_status: int, command: list[str], image: str, stderr: bytes) -> None:
        words = " ".join(command)
        last = stderr[-1024:].decode("utf-8", "replace").strip()
        super().__init__(
            f"container {container}: {words!r} in {image} ended with status {exit_status}{': ' if last else ''}{last}"
        )
        self.container, self.exit_status, self.command, self.image = container, exit_status, command, image
        self.stderr = stderr


class ExecTimeout(HutchError):
    """A process took longer than it was given, and was killed.

    Attributes:
        stdout: what it had written by then.
        stderr: the same.
    """

    http_status = 504

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stdout = self.stderr = b""


class OutputTooLarge(HutchError):
    """A process wrote more than the caller wants to keep."""

    http_status = 413


class Internal(HutchError):
    """A broken invariant, of ours or of stored data."""


class DigestMismatch(Internal):
    """Content differs from the digest or size that promised it.

    Args:
        wanted: the digest (and size) promised.
        got: the digest (and size) found.
    """

    def __init__(self, what: str, *, wanted: str, got: str) -> None:
        super().__init__(f"{what}: digest mismatch: wanted {wanted}, got {got}")
        self.wanted = wanted
        self.got = got


class ContainerSetupFailed(Internal):
    """A step between fork and execve failed.

    Args:
        step: what was being done, as in the handshake (``mount /proc in rootfs``).
        errno: the kernel's error number, 0 where the failure was not the kernel's.
        path: the path concerned, or an empty string.
        detail: what to say instead of the errno's text.
    """

    def __init__(self, step: str, errno: int, path: str = "", detail: str = "") -> None:
        cause = detail or os.strerror(errno).lower()
        super().__init__(f"{step}: {path}: {cause}" if path else f"{step}: {cause}")
        self.step = step
        self.errno = errno
        self.path = path
        self.detail = detail
