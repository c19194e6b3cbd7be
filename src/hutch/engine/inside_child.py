"""The process that reads and writes a container's files. Started by `hutch.engine.inside`.

Its one argument is a JSON object that says which files it gets at. Then it answers requests on a SOCK_SEQPACKET
channel, one after the other, until that is closed:

    stat   → what a path is
    read   → an archive on descriptor 1
    write  ← an archive on descriptor 0
    diff   → `KIND path` on descriptor 1, each with a NUL at its end
    layer  → an OCI layer on descriptor 1

Paths cross as Latin-1, byte for byte. It runs no program, resolves no user's name and decompresses nothing
(security.md B4, B5), and by the time it answers the first request no path of its own leads anywhere.
"""

from __future__ import annotations

import errno
import os
import stat

from hutch.engine import inside_view
from hutch.errors import InvalidArgument
from hutch.image.extract import Extractor
from hutch.image.layer import TarReader
from hutch.image.tarwriter import TarWriter
from hutch.image.treewriter import Opened, TreeWriter, open_own_files
from hutch.linux.paths import Root
from hutch.linux.seqpacket import Channel
from hutch.runtime import documents
from hutch.snapshot import confine, idmap, report
from hutch.snapshot.comparison import ADDED, DELETED, Comparison
from hutch.snapshot.whiteouts import PREFIX, LowerLayers, Whiteouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hutch.image.treewriter import OwnerMap
    from hutch.spec.runtime import Spec

    Answer = dict[str, Any]

MESSAGE_BYTES_MAX = 64 << 10
_SPEC_BYTES_MAX = 16 << 20
_CHUNK = 256 << 10
_LINKS_MAX = 40
_FILES_MAX = 4096
_NOBODY = 65534
_ST_RDONLY = 1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR)


def main(arguments: list[str]) -> int:
    """Serve one caller.

    Args:
        arguments: the JSON object: `control`, the descriptor of the channel, and what `_open` makes of it.
    """
    task = documents.parse_object(arguments[0].encode(), source="task")
    with Channel(task["control"]) as channel:
        try:
            verbs = _open(task)
        except BaseException as problem:
            _fail(channel, problem)
            return 1
        channel.send(b"{}")
        while True:
            data, _ = channel.recv(MESSAGE_BYTES_MAX)
            if not data:
                return 0
            request = documents.parse_object(data, source="request")
            verb = request.pop("verb")
            try:
                answer = verbs[verb](**request)
            except BaseException as problem:
                over = verb != "stat"  # of an archive, nobody knows how much came through
                _fail(channel, problem, over=over)
                if over:
                    return 1
                continue
            channel.send(documents.dump_bytes(answer))


def _fail(channel: Channel, problem: BaseException, *, over: bool = True) -> None:
    fields = [field.decode("latin-1") for field in report.described(problem)]
    channel.send(documents.dump_bytes({"failure": fields, "over": over}))


def _open(task: dict[str, Any]) -> dict[str, Callable[..., Answer]]:
    files_fd = open_own_files()
    os.umask(0)
    inside_view.more_files(_FILES_MAX)
    if task["kind"] == "layers":
        layers = Layers(task, files_fd)
        return {"diff": layers.diff, "layer": layers.layer}
    if task["kind"] == "live":
        root = inside_view.live(task["pidfd"], own_users=task["own_users"], alone=task["alone"])
    else:
        spec: Spec = documents.read_object(f"{task['bundle']}/config.json", _SPEC_BYTES_MAX)  # type: ignore[assignment]
        rootfs = task["rootfs"] or f"{task['bundle']}/rootfs"
        root = inside_view.mounted(spec, task["bundle"], rootfs, task["root_mounts"], alone=task["alone"])
    tree = Tree(root, files_fd, devices=not task["own_users"])
    return {"stat": tree.stat, "read": tree.read, "write": tree.write}


class Tree:
    """The files of a container as it sees them.

    Args:
        root: its root.
        files_fd: our own /proc/self/fd.
        devices: whether device nodes can be made.
    """

    def __init__(self, root: Root, files_fd: int, *, devices: bool) -> None:
        self._root, self._files_fd, self._devices = root, files_fd, devices

    def stat(self, path: str) -> Answer:
        """What a path is; the last name is not followed unless a slash or a dot comes after it."""
        with self._at(_bytes(path)) as opened:
            status = opened.status
        found: Answer = {"mode": status.st_mode, "size": status.st_size, "mtime_nanos": status.st_mtime_ns, "link": ""}
        if stat.S_ISLNK(status.st_mode):
            found["link"] = _text(b"/" + self._canonical(_bytes(path)))
        return found

    def read(self, path: str, name: str) -> Answer:
        """Write an archive of `path`, whose entries begin with `name`."""
        tar = TarWriter(1)
        with self._at(_bytes(path)) as opened, TreeWriter(tar, files_fd=self._files_fd) as writer:
            if opened.is_directory:
                writer.tree(opened.fd, b".", _bytes(name))
            else:
                writer.entry(opened, _bytes(name))
            tar.finish()
            return {"notes": writer.notes, "size": tar.size}

    def write(self, path: str, owner: list[int] | None) -> Answer:
        """Extract the archive of descriptor 0 into the directory `path`."""
        place = self._canonical(_bytes(path))
        try:
            place_fd = self._root.open(place, os.O_PATH | os.O_DIRECTORY)
        except NotADirectoryError:
            raise InvalidArgument("extraction point is not a directory") from None
        try:
            self._check_writable(place_fd)
        finally:
            os.close(place_fd)
        root_fd = os.open(".", _DIRECTORY, dir_fd=self._root.fd)
        try:
            ids = (owner[0], owner[1]) if owner else None
            extractor = Extractor(root_fd, place, owner=ids, devices=self._devices)
            extractor.consume(TarReader(lambda: os.read(0, _CHUNK)))
        finally:
            os.close(root_fd)
        return {"notes": extractor.notes}

    def _check_writable(self, place_fd: int) -> None:
        if not os.fstatvfs(place_fd).f_flag & _ST_RDONLY:
            return
        if os.fstat(place_fd).st_dev == os.fstat(self._root.fd).st_dev:
            raise InvalidArgument("container rootfs is marked read-only")
        raise InvalidArgument("mounted volume is marked read-only")

    def _at(self, path: bytes) -> Opened:
        if path.endswith((b"/", b"/.")) or path in (b"", b"."):
            directory_fd = self._root.open(path, os.O_PATH | os.O_DIRECTORY)
            name = b"."
        else:
            directory_fd, name = self._root.parent(path)
        try:
            return Opened(directory_fd, name)
        finally:
            os.close(directory_fd)

    def _canonical(self, path: bytes) -> bytes:
        """The path without links, below the root; what does not exist stays as it is written."""
        pending = path.split(b"/")[::-1]
        done: list[bytes] = []
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del done[-1:]
                continue
            done.append(part)
            target = self._link(b"/".join(done))
            if target is None:
                continue
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith(b"/"):
                done.clear()
            else:
                done.pop()
            pending += target.split(b"/")[::-1]
        return b"/".join(done)

    def _link(self, path: bytes) -> bytes | None:
        try:
            directory_fd, name = self._root.parent(path)
        except OSError as problem:
            if problem.errno in _GONE:
                return None
            raise
        try:
            return os.readlink(name, dir_fd=directory_fd)
        except OSError as problem:
            if problem.errno in (*_GONE, errno.EINVAL):
                return None
            raise
        finally:
            os.close(directory_fd)


class Layers:
    """What a container changed, from its own directories and those of the layers below.

    Args:
        task: `parts`, each with `destination`, `upper`, `lowers`, `form` and `whole`; `mount_points`; `maps`, the id
            maps of files that have host ids of the container's own.
        files_fd: our own /proc/self/fd.
    """

    def __init__(self, task: dict[str, Any], files_fd: int) -> None:
        confine.enter_namespaces(idmap.id_map() if idmap.needs_user_namespace() else None)
        self._files_fd = files_fd
        self._parts: list[tuple[bytes, Comparison, int, OwnerMap]] = []
        points = [_bytes(point).strip(b"/") for point in task["mount_points"]]
        for part in task["parts"]:
            destination = _bytes(part["destination"]).strip(b"/")
            upper_fd = confine.hold(part["upper"], writable=False)
            lower_fds = tuple(confine.hold(path, writable=False) for path in part["lowers"])
            whiteouts = Whiteouts(part["form"])
            owner = _owner(task["maps"], os.fstat(upper_fd))
            comparison = Comparison(
                upper_fd,
                LowerLayers(lower_fds, whiteouts),
                whiteouts,
                whole=part["whole"],
                owner=owner,
                mount_points=[_below(point, destination) for point in points if _is_below(point, destination)],
            )
            self._parts.append((destination, comparison, upper_fd, owner))
        inside_view.hide()
        inside_view.give_up_powers()

    def diff(self) -> Answer:
        """List the changes."""
        out = bytearray()
        for destination, comparison, _, _ in self._parts:
            first = bool(destination)
            for found in comparison:
                if first:
                    out += b"C /" + destination + b"\0"
                    first = False
                out += found.kind.encode() + b" /" + _joined(destination, found.path) + b"\0"
                if len(out) > _CHUNK:
                    _send(out)
        _send(out)
        return {}

    def layer(self) -> Answer:
        """Write the layer."""
        tar = TarWriter(1)
        notes: dict[str, int] = {}
        for destination, comparison, upper_fd, owner in self._parts:
            comparison.everything = True
            with TreeWriter(tar, owner, files_fd=self._files_fd) as writer:
                self._write(writer, comparison, destination, upper_fd)
                notes |= writer.notes
        tar.finish()
        return {"notes": notes, "size": tar.size}

    def _write(self, writer: TreeWriter, comparison: Comparison, destination: bytes, upper_fd: int) -> None:
        pending = destination or (b"./" if comparison.root_differs() else b"")
        for found in comparison:
            if pending:
                with Opened(upper_fd, b".") as top:
                    writer.entry(top, pending)
                pending = b""
            path = _joined(destination, found.path)
            if any(part.startswith(PREFIX) for part in found.path.split(b"/")):
                writer.notes["files whose names begin with .wh."] = 1  # to a layer's readers they mean deletion
            elif found.kind == DELETED:
                writer.whiteout(path)
            else:
                with Opened(found.dir_fd, found.name) as opened:
                    writer.entry(opened, path)
                    if found.opaque and opened.is_directory and found.kind != ADDED:
                        writer.opaque(path)
        if pending == b"./":
            with Opened(upper_fd, b".") as top:
                writer.entry(top, pending)


def _owner(maps: dict[str, Any], status: os.stat_result) -> OwnerMap:
    """From ids on disk to those of the image: as they are, unless the directory belongs to a range of its own."""
    uids, gids = maps.get("uids") or [], maps.get("gids") or []
    if not any(first <= status.st_uid < first + size for _, first, size in uids):
        return lambda uid, gid: (uid, gid)
    return lambda uid, gid: (_mapped(uid, uids), _mapped(gid, gids))


def _mapped(number: int, ranges: list[list[int]]) -> int:
    for inside, outside, size in ranges:
        if outside <= number < outside + size:
            return inside + number - outside
    return _NOBODY


def _is_below(path: bytes, directory: bytes) -> bool:
    return not directory or path.startswith(directory + b"/")


def _below(path: bytes, directory: bytes) -> bytes:
    return path[len(directory) + 1 :] if directory else path


def _joined(directory: bytes, path: bytes) -> bytes:
    return directory + b"/" + path if directory else path


def _send(out: bytearray) -> None:
    view = memoryview(bytes(out))
    out.clear()
    while view:
        view = view[os.write(1, view) :]


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _text(data: bytes) -> str:
    return data.decode("latin-1")
