"""Where a container's root file system comes from: an image, the running system (``@host``), or a directory."""

from __future__ import annotations

import os

from hutch.engine.image_settings import ImageSettings
from hutch.engine.record import Record
from hutch.engine.rootview import LayersView
from hutch.errors import InvalidArgument, NotSupported
from hutch.snapshot import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.engine.images import Pulling
    from hutch.engine.options import RunOptions
    from hutch.snapshot.snapshotter import Rootfs
    from hutch.spec.runtime import Mount

HOST_IMAGE = "@host"


class RootSource(Record):
    """A root file system to be.

    Attributes:
        path: the directory itself with --rootfs, else empty: it is mounted at the container's own mount point.
        mounts: what makes it.
        layers: host directories it consists of, the topmost first, for reading before it is mounted.
        form: how whiteouts are written in them.
        settings: the image's wishes, none for a directory.
        uppers: directories that get what the container writes.
        discard: takes away what was made for this container.
    """

    path: str = ""
    mounts: tuple[Mount, ...] = ()
    layers: tuple[str, ...] = ()
    form: str = "trusted"
    uppers: tuple[str, ...] = ()
    settings: ImageSettings = ImageSettings()
    image_id: str = ""
    chain_ids: tuple[str, ...] = ()
    discard: Callable[[], None] | None = None

    def view(self) -> LayersView:
        """A look into it; the caller closes it."""
        return LayersView(self.layers, self.form)


def root_source(
    engine: Engine, options: RunOptions, directory: ContainerDirectory, *, pulling: Pulling | None
) -> RootSource:
    """Find, and for an image pull and unpack, what the container's root will be.

    Raises:
        InvalidArgument: --rootfs names no directory.
        HutchError: of the image's side.
    """
    if options.rootfs:
        return _directory(engine, options, directory)
    if options.image == HOST_IMAGE:
        return _host(engine, directory)
    from hutch.engine.images import claim_image

    found = claim_image(engine, directory, options.image, pull=options.pull, platform=options.platform, pulling=pulling)
    rootfs = engine.snapshots.prepare(directory.record.id, found.chain_ids)
    return RootSource(
        mounts=rootfs.mounts,
        layers=_layers(rootfs),
        uppers=(rootfs.upper,) if rootfs.upper else (),
        form=rootfs.whiteouts,
        settings=found.settings,
        image_id=found.image_id,
        chain_ids=found.chain_ids,
        discard=_discard(engine, directory),
    )


def _layers(rootfs: Rootfs) -> tuple[str, ...]:
    """The directories the root consists of, the topmost first; a plain copy is one by itself."""
    return (rootfs.upper, *rootfs.lowers) if rootfs.upper else (rootfs.mounts[0]["source"],)


def _directory(engine: Engine, options: RunOptions, directory: ContainerDirectory) -> RootSource:
    path, colon, mode = options.rootfs.rpartition(":")
    if not colon or "/" in mode:
        path, mode = options.rootfs, ""
    if mode not in ("", "O"):
        raise InvalidArgument(f"invalid --rootfs option: {mode}", hint="O puts an overlay over the directory")
    path = os.path.abspath(path)
    if not os.path.isdir(path):
        raise InvalidArgument(f"rootfs {path}: not a directory")
    if mode == "O":
        return _overlaid(engine, path, directory)
    return RootSource(path=path, layers=(path,))


def _overlaid(engine: Engine, path: str, directory: ContainerDirectory) -> RootSource:
    """A directory under a throw-away overlay: what is written goes into the container's snapshot."""
    from hutch.snapshot.overlay import like, overlay_mount

    if engine.snapshots.name != "overlay":
        raise NotSupported(f"rootfs {path}:O: {engine.snapshotter_reason}")
    if any(char in path for char in ":,\\"):
        raise InvalidArgument(f"rootfs {path}: an overlay cannot have ':', ',' or '\\' in its path")
    place = f"{engine.root}/snapshots/{directory.record.id}"
    upper, work = f"{place}/upper", f"{place}/work"
    user = in_any_user_namespace()
    for made in (upper, work):
        os.makedirs(made, 0o700)
    like(path, upper)
    return RootSource(
        mounts=(overlay_mount((path,), upper, work, user=user),),
        layers=(upper, path),
        uppers=(upper,),
        form="user" if user else "trusted",
        discard=_discard(engine, directory),
    )


def _host(engine: Engine, directory: ContainerDirectory) -> RootSource:
    """The running system; the caller's shell is what runs in it unless something else is said."""
    from hutch.snapshot.host import host_rootfs

    if engine.snapshots.name != "overlay":
        raise NotSupported(f"image {HOST_IMAGE}: {engine.snapshotter_reason}")
    user = in_any_user_namespace()
    rootfs = host_rootfs(engine.root, directory.record.id, user=user)
    shell = os.environ.get("SHELL", "")
    return RootSource(
        mounts=rootfs.mounts,
        layers=("/",),
        uppers=tuple(part.upper for part in rootfs.parts),
        form="user" if user else "trusted",
        settings=ImageSettings(cmd=(shell if shell.startswith("/") else "/bin/sh",)),
        discard=_discard(engine, directory),
    )


def in_any_user_namespace() -> bool:
    """Whether the container's mounts are made in a user namespace, its own or one around us."""
    return idmap.needs_user_namespace() or idmap.in_user_namespace()


def _discard(engine: Engine, directory: ContainerDirectory) -> Callable[[], None]:
    container_id = directory.record.id
    return lambda: engine.snapshots.remove(container_id)
