"""A look into a container's root file system before it is mounted: the layers read as overlay will merge them.

The engine needs two things of an image before a process can start: /etc/passwd and /etc/group. Reading the layers by
descriptor needs no mount and no namespace, and stays inside the image whatever its links say.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.snapshot.whiteouts import LowerLayers, Whiteouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_LINKS_MAX = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class LayersView:
    """The merged tree of some layer directories; a context manager.

    Args:
        layers: host directories, the topmost first; the engine's own, of untrusted content.
        form: how whiteouts are written in them.
    """

    __slots__ = ("_fds", "_layers", "_paths", "_whiteouts")

    def __init__(self, layers: Sequence[str], form: str) -> None:
        fds: list[int] = []
        try:
            for path in layers:
                fds.append(os.open(path, _DIRECTORY))  # noqa: PERF401
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        self._fds = tuple(fds)
        self._paths = tuple(layers)
        self._whiteouts = Whiteouts(form)
        self._layers = LowerLayers(self._fds, self._whiteouts)

    def close(self) -> None:
        """Close the layers."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: str, limit: int) -> bytes:
        """The content of a regular file, links followed inside the root.

        Raises:
            OSError: ENOENT, ELOOP, ENOTDIR, EINVAL (not a regular file), EFBIG (more than `limit` bytes).
        """
        parent_fd, name, status = self._resolve(os.fsencode(path))[0]
        try:
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            data = b""
            while len(data) <= limit and (chunk := file.read(limit + 1 - len(data))):
                data += chunk
        if len(data) > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data

    def name_of(self, path: str) -> str:
        """The last name of what `path` is when links are followed; empty if it is nothing."""
        try:
            (parent_fd, name, _), _ = self._resolve(os.fsencode(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
                return ""
            raise
        os.close(parent_fd)
        return os.fsdecode(name)

    def directories(self, path: str) -> tuple[str, ...]:
        """The host directories that overlay would merge into the directory `path`, topmost first; none if it is none.

        Their components are no links: what an image says a path is has been followed inside it (CVE-2022-23648).
        """
        try:
            (parent_fd, _, status), parts = self._resolve(os.fsencode(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
                return ()
            raise
        os.close(parent_fd)
        if not stat.S_ISDIR(status.st_mode):
            return ()
        found = []
        for layer_fd, layer in zip(self._fds, self._paths, strict=True):
            present, covered = self._has(layer_fd, parts)
            if present:
                found.append(f"{layer}/{os.fsdecode(b'/'.join(parts))}")
            if covered:
                break
        return tuple(found)

    def _has(self, layer_fd: int, parts: list[bytes]) -> tuple[bool, bool]:
        """Whether a layer has the directory, and whether it covers what the layers below have of it."""
        covered = False
        here = os.open(".", _DIRECTORY, dir_fd=layer_fd)
        try:
            for part in parts:
                try:
                    below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        raise
                    return False, covered or error.errno != errno.ENOENT or self._whiteouts.hides(here, part)
                os.close(here)
                here = below
                covered |= self._whiteouts.is_opaque(here)
            return True, covered
        finally:
            os.close(here)

    def _resolve(self, path: bytes) -> tuple[tuple[int, bytes, os.stat_result], list[bytes]]:
        """Follow `path` through the merged tree: what was found, and its path without links.

        The descriptor of the parent is the caller's to close.
        """
        pending, links = _split(path), 0
        done: list[bytes] = []
        while pending:
            part = pending.pop(0)
            if part == b"..":
                del done[-1:]
                continue
            found = self._layers.find(b"/".join((*done, part)))
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            parent_fd, name, status = found
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(name, dir_fd=parent_fd)
                os.close(parent_fd)
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith(b"/"):
                    done = []
                pending = _split(target) + pending
                continue
            if not pending:
                return found, [*done, part]
            os.close(parent_fd)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            done.append(part)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


def _split(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]
