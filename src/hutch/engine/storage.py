"""What the user attaches to a container, looked up and made ready: host directories, volumes, image volumes."""

from __future__ import annotations

import fcntl
import os

from hutch.engine.mounts import Attached
from hutch.engine.mountspec import MountRequest, clean_target
from hutch.engine.undo import Interruptions
from hutch.errors import InvalidArgument, NotFound, NotSupported
from hutch.linux.paths import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.engine.image_settings import ImageSettings
    from hutch.engine.options import RunOptions
    from hutch.engine.rootfs import RootSource
    from hutch.engine.undo import Undo
    from hutch.spec.runtime import Mount


def wanted_mounts(options: RunOptions, image: ImageSettings) -> tuple[MountRequest, ...]:
    """The user's mounts, then an anonymous volume for each of the image's VOLUMEs that none of them covers.

    An image's path is cleaned lexically and is only ever a destination in the container and a source in the image;
    ``/../../etc`` is ``/etc`` of the image (CVE-2022-23648).
    """
    taken = {mount.target for mount in options.mounts}
    found = list(options.mounts)
    for path in image.volumes:
        target = clean_target("/" + path.lstrip("/"))
        if target not in taken:
            taken.add(target)
            found.append(MountRequest(kind="volume", target=target))
    return tuple(found)


def bind_source(request: MountRequest, *, cwd: str) -> str:
    """The host path of a bind mount, made if -v asked for it.

    Args:
        request: of kind bind; its source is the user's own path and trusted as such.
        cwd: what a relative path starts from.

    Raises:
        InvalidArgument: it does not exist and may not be made.
    """
    source = os.path.normpath(os.path.join(cwd, request.source))
    if os.path.lexists(source):
        return source
    if not request.create_source:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {source}',
            hint="create it, or use -v, which makes a directory",
        )
    try:
        os.makedirs(source, 0o755)
    except OSError as error:
        raise InvalidArgument(f"bind source {source}: {os.strerror(error.errno or 0).lower()}") from None
    return source


def _cwd(source: str) -> str:
    """The current directory, which may have been removed and then matters only to a relative path."""
    if source.startswith("/"):
        return "/"
    try:
        return os.getcwd()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidArgument(f"bind source {source}: the current directory: {reason}") from None


def attach(
    engine: Engine, requests: tuple[MountRequest, ...], source: RootSource, directory: ContainerDirectory, undo: Undo
) -> list[Attached]:
    """Make every request ready to mount.

    Args:
        engine: whose volumes.
        requests: of `wanted_mounts`.
        source: the container's root file system, which empty volumes are filled from.
        directory: the container; anonymous volumes are noted on its record.
        undo: gets a step for what is made for this container alone.

    Raises:
        HutchError: a source that is not there, or that cannot be used so.
    """
    found = []
    for request in requests:
        if request.kind == "bind":
            found.append(Attached(request=request, source=bind_source(request, cwd=_cwd(request.source))))
        elif request.kind == "tmpfs":
            found.append(Attached(request=request))
        elif request.kind == "volume":
            path = _volume(engine, request, source, directory, undo)
            found.append(Attached(request=request, source=path))
    return found


def image_mounts(
    engine: Engine,
    requests: tuple[MountRequest, ...],
    directory: ContainerDirectory,
    undo: Undo,
    find: Callable[[str], tuple[str, ...]],
) -> tuple[list[Mount], list[str]]:
    """The mounts that show other images in the container, for the runtime's root_mounts.

    Each is read-only unless the user says otherwise; then what is written goes into a snapshot that ends with the
    container, and the image stays as it is.

    Args:
        engine: whose snapshots.
        requests: those of kind image count.
        directory: the container; the snapshots made for it are noted on its record.
        undo: gets a step for each of them.
        find: image name → chain ids, base first.

    Returns:
        The mounts, and the directories that get what is written through them.
    """
    found: list[Mount] = []
    uppers: list[str] = []
    for request in requests:
        if request.kind != "image":
            continue
        if request.subpath:
            raise NotSupported("image-subpath: not supported in this version")
        key = f"{directory.record.id}-{len(found)}"
        chain_ids = find(request.source)
        directory.record.snapshots.append(key)
        directory.save(durable=False)
        undo.add(_removal(engine, key))
        rootfs = engine.snapshots.prepare(key, chain_ids)
        if rootfs.upper:
            uppers.append(rootfs.upper)
        mount = rootfs.mounts[0]
        access = ["ro"] if request.read_only else []
        options = [*mount["options"], "nosuid", "nodev", *access]
        found.append({**mount, "destination": request.target, "options": options})
    return found, uppers


def _removal(engine: Engine, key: str) -> Callable[[], None]:
    return lambda: engine.snapshots.remove(key)


def _volume(
    engine: Engine, request: MountRequest, source: RootSource, directory: ContainerDirectory, undo: Undo
) -> str:
    labels = dict(label.partition("=")[::2] for label in request.labels)

    def announce(name: str) -> None:
        directory.record.volumes.append(name)
        directory.save(durable=False)
        undo.add(lambda: _remove_volume(engine, name))

    volume = engine.volumes.create(request.source, labels=labels, announce=announce)
    if request.copy_up:
        _fill(volume.path, source, request.target)
    if not request.subpath:
        return volume.path
    with Root.at(volume.path) as root:
        try:
            os.close(root.open(request.subpath, os.O_PATH | os.O_NOFOLLOW))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise InvalidArgument(f"volume {volume.name}: subpath {request.subpath}: {reason}") from None
    raise NotSupported("volume-subpath: not supported in this version")


def _remove_volume(engine: Engine, name: str) -> None:
    try:
        engine.volumes.remove(name)
    except NotFound:
        pass


def _fill(path: str, source: RootSource, target: str) -> None:
    """Copy what the image has at `target` into an *empty* volume, with its owners and modes (CVE-2025-9566).

    The lock makes one of two containers that start at once do it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.listdir(fd):
            return
        with source.view() as view:
            layers = view.directories(target)
        if not layers:
            return
        from hutch.snapshot import helper

        pairs = [word for layer in reversed(layers) for word in (source.form, layer)]
        with Interruptions(allowed=True):
            helper.run("hutch.snapshot.tree_child", ["merge", path, *pairs])
        helper.run("hutch.snapshot.tree_child", ["like", layers[0], path])
    finally:
        os.close(fd)
