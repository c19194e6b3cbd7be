"""Layers on disk: staged in `tmp/`, made durable, renamed into place (what every snapshotter shares).

    layers/sha256-<hex>/diff        the files
    layers/sha256-<hex>/layer.json  written last: without it there is no layer
    tmp/layer-<random>/             a stage; its owner holds a lock on it, so that `sweep` knows the dead ones
    tmp/gone-<random>/              out of sight and being deleted, by whoever holds the lock on it

The files of a layer reach the disk (syncfs) before the marker, the marker before the rename, the rename before
`commit` returns. Removing goes the other way: renamed out first, deleted then.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from hutch.errors import InvalidArgument, InvalidConfig, NotFound, NoUserNamespaces
from hutch.linux.files import private_directory, syncfs
from hutch.runtime import documents
from hutch.snapshot import helper, idmap
from hutch.snapshot.removal import remove_tree
from hutch.snapshot.snapshotter import LayerInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

_DIGITS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_KEY = _ALPHANUMERIC | frozenset("_.-")
_KEY_MAX = 255
_MARKER = "layer.json"
_MARKER_BYTES_MAX = 64 << 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ANYTHING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEMPORARY = ("layer", "gone", "volume", "probe", "load")
_UNLOCKED = ("probe", "load")
_UNLOCKED_AGE_S = 3600.0
_SEPARATORS = frozenset(":,\\\n")


class LayerStore:
    """The layers below one data root.

    Args:
        root: the data root; made 0700 if it is missing.
        whiteouts: the form in which new layers say that files are gone.
    """

    def __init__(self, root: str, whiteouts: str) -> None:
        if _SEPARATORS & set(root) or not root.startswith("/"):
            raise InvalidArgument(f"data root {root!r}: must be an absolute path without ':', ',' or '\\'")
        self.root = root
        self.whiteouts = whiteouts
        for directory in (root, self._layers, self.tmp):
            private_directory(directory)

    @property
    def tmp(self) -> str:
        """Where half-done things are; on the same file system."""
        return f"{self.root}/tmp"

    @property
    def _layers(self) -> str:
        return f"{self.root}/layers"

    def path(self, chain_id: str) -> str:
        """The directory of a layer that may or may not exist."""
        if not _is_chain_id(chain_id):
            raise InvalidArgument(f"chain id {chain_id[:140]!r}: not a digest")
        return f"{self._layers}/{chain_id.replace(':', '-')}"

    def diff(self, chain_id: str) -> str:
        """The directory of a layer's files."""
        return f"{self.path(chain_id)}/diff"

    def has(self, chain_id: str) -> bool:
        """True if the layer is whole and its whiteouts are of this store's form."""
        try:
            return self.info(chain_id).whiteouts == self.whiteouts
        except NotFound:
            return False

    def info(self, chain_id: str) -> LayerInfo:
        """The layer's marker.

        Raises:
            NotFound: there is no layer, or its marker is not what `commit` wrote.
        """
        path = f"{self.path(chain_id)}/{_MARKER}"
        try:
            found = LayerInfo.parse(documents.read_object(path, _MARKER_BYTES_MAX))
        except FileNotFoundError:
            raise NotFound(f"layer {chain_id}: not here") from None
        except (InvalidConfig, ValueError) as problem:
            raise NotFound(f"layer {chain_id}: broken {_MARKER}", hint="pull the image again") from problem
        if found.chain_id != chain_id:
            raise NotFound(f"layer {chain_id}: {_MARKER} names another layer", hint="pull the image again")
        return found

    def all(self) -> list[str]:
        """The chain ids of whole layers."""
        names = (name.replace("-", ":", 1) for name in os.listdir(self._layers))
        return sorted(name for name in names if _is_chain_id(name) and self.has(name))

    def stack(self, chain_ids: Sequence[str]) -> tuple[str, ...]:
        """The directories of a chain (base first), top first, without those that an opaque layer hides.

        Raises:
            NotFound: one of them is missing.
        """
        found: list[str] = []
        for chain_id in reversed(chain_ids):
            info = self.info(chain_id)
            found.append(self.diff(chain_id))
            if info.opaque:
                break
        return tuple(found)

    def stage(self, chain_id: str, parents: Sequence[str]) -> DirectoryStage:
        """Begin a layer."""
        self.path(chain_id)
        return DirectoryStage(self, chain_id, parents)

    def remove(self, chain_id: str) -> None:
        """Delete a layer if it is there."""
        self.discard(self.path(chain_id))

    def discard(self, path: str, *, durable: bool = True) -> None:
        """Move a directory of this data root out of sight, then delete it.

        Args:
            path: the directory.
            durable: False does not wait for the disk in between: after a power cut it may be back, and half empty.
        """
        try:
            gone, lock_fd = hide(path, self.tmp)
        except FileNotFoundError:
            return
        try:
            if durable:
                _sync(os.path.dirname(path))
            delete(gone)
        finally:
            os.close(lock_fd)

    def sweep(self) -> int:
        """Delete stages whose owner is dead, what removal left, and layers without a marker."""
        count = sweep_temporary(self.tmp, _TEMPORARY)
        for name in os.listdir(self._layers):
            if not os.path.exists(f"{self._layers}/{name}/{_MARKER}"):
                self.discard(f"{self._layers}/{name}")
                count += 1
        return count

    def publish(self, directory: str, info: LayerInfo) -> bool:
        """Write the marker into a stage's directory and rename it into place; False if a layer is there already."""
        marker = f"{directory}/{_MARKER}"
        fd = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, documents.dump_bytes(info.to_dict()))
            os.fsync(fd)
        finally:
            os.close(fd)
        _sync(directory)
        target = self.path(info.chain_id)
        while True:
            try:
                os.rename(directory, target)
            except OSError as problem:
                if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if self.has(info.chain_id):
                    return False
                self.discard(target)  # of another form, or broken
            else:
                _sync(self._layers)
                return True


class DirectoryStage:
    """A layer being unpacked into a directory of `tmp/`."""

    def __init__(self, store: LayerStore, chain_id: str, parents: Sequence[str]) -> None:
        self._store = store
        self._info = LayerInfo(chain_id, parent=parents[-1] if parents else "", whiteouts=store.whiteouts)
        self._directory = f"{store.tmp}/layer-{os.urandom(8).hex()}"
        self._lock_fd = -1
        self.lowers = store.stack(parents)
        self.whiteouts = store.whiteouts

    @property
    def path(self) -> str:
        """The empty directory to unpack into."""
        return f"{self._directory}/diff"

    def __enter__(self) -> Self:
        self._lock_fd = make_locked(self._directory)
        os.mkdir(self.path, 0o700)
        return self

    def commit(self, *, diff_id: str = "", size: int = 0, opaque: bool = False, notes: Sequence[str] = ()) -> None:
        """Make the layer durable and visible."""
        self._info.diff_id, self._info.size, self._info.opaque = diff_id, size, opaque
        self._info.notes = list(notes)
        syncfs(self._lock_fd)
        if self._store.publish(self._directory, self._info):
            self._directory = ""

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._directory:
                delete(self._directory)
        finally:
            os.close(self._lock_fd)


def _is_chain_id(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    return len(digits) == _DIGITS.get(algorithm) and _HEX.issuperset(digits)


def check_key(key: str) -> str:
    """Return a snapshot's key, or raise InvalidArgument if it cannot be a file name."""
    if not 0 < len(key) <= _KEY_MAX or key[0] not in _ALPHANUMERIC or not _KEY.issuperset(key):
        raise InvalidArgument(f"snapshot key {key[:260]!r}: letters, digits, '_', '.' and '-' only")
    return key


def make_locked(path: str) -> int:
    """Make a directory of `tmp/` that no sweep takes for a dead one's.

    Returns:
        A descriptor that holds the lock on it, for the caller to close.
    """
    while True:
        os.mkdir(path, 0o700)
        try:
            lock_fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            continue  # swept in between
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        if os.path.exists(path):
            return lock_fd
        os.close(lock_fd)


def hide(path: str, tmp: str) -> tuple[str, int]:
    """Rename a directory into `tmp/`, to be deleted there; FileNotFoundError if it is gone already.

    Returns:
        Its path now, and a descriptor that keeps a sweep from deleting it at the same time, for the caller to close.
    """
    gone = f"{tmp}/gone-{os.urandom(8).hex()}"
    lock_fd = os.open(path, _ANYTHING)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH)
        os.rename(path, gone)
    except BaseException:
        os.close(lock_fd)
        raise
    return gone, lock_fd


def sweep_temporary(tmp: str, kinds: Sequence[str]) -> int:
    """Delete what killed processes left in `tmp/`, of the kinds its names begin with.

    Returns:
        How much there was.

    Raises:
        OSError: some of it cannot be deleted; the rest was.
    """
    count, first = 0, None
    for name in os.listdir(tmp):
        kind = name.partition("-")[0]
        if kind not in kinds or (kind in _UNLOCKED and _age_s(f"{tmp}/{name}") < _UNLOCKED_AGE_S):
            continue
        try:
            count += _delete_unlocked(f"{tmp}/{name}")
        except OSError as problem:
            first = first or problem
    if first is not None:
        raise first
    return count


def delete(path: str) -> None:
    """Delete a tree of this data root; for an ordinary user in a user namespace, where its owners are his."""
    denied: NoUserNamespaces | None = None
    if idmap.needs_user_namespace():
        try:
            helper.run("hutch.snapshot.tree_child", ["remove", path])
            return
        except NoUserNamespaces as problem:
            denied = problem  # what belongs to this user alone can go all the same
    parent_fd = os.open(os.path.dirname(path), _DIRECTORY)
    try:
        remove_tree(parent_fd, os.fsencode(os.path.basename(path)))
    except PermissionError as problem:
        raise denied or problem from None
    finally:
        os.close(parent_fd)


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _sync(directory: str) -> None:
    fd = os.open(directory, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _delete_unlocked(path: str) -> int:
    """Delete a tree unless somebody holds the lock on it; returns how many were deleted."""
    try:
        fd = os.open(path, _ANYTHING)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        delete(path)
    except (BlockingIOError, FileNotFoundError):
        return 0
    finally:
        os.close(fd)
    return 1
