"""What the user attaches to a container, looked up and made ready: host directories, volumes, image volumes."""

from __future__ import annotations

import os

from hutch.engine import mountrecord
from hutch.engine.mounts import Attached
from hutch.engine.mountspec import MountRequest, clean_target, parse_volumes_from
from hutch.engine.rootview import LayersView
from hutch.engine.undo import Interruptions
from hutch.errors import InvalidArgument, NotFound, NotSupported, Unavailable
from hutch.linux.mountinfo import mountinfo
from hutch.linux.paths import Root
from hutch.snapshot.overlay import like
from hutch.snapshot.snapshotter import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.engine.image_settings import ImageSettings
    from hutch.engine.options import RunOptions
    from hutch.engine.rootfs import RootSource
    from hutch.engine.selinux import Contexts
    from hutch.engine.undo import Undo
    from hutch.spec.runtime import Mount
    from hutch.volume.local import LocalMount
    from hutch.volume.store import Volume


def wanted_mounts(options: RunOptions, image: ImageSettings) -> tuple[MountRequest, ...]:
    """Other containers' mounts, the user's, then an anonymous volume for each of the image's VOLUMEs left uncovered.

    An image's path is cleaned lexically and is only ever a destination in the container and a source in the image;
    ``/../../etc`` is ``/etc`` of the image (CVE-2022-23648).
    """
    taken = {mount.target for mount in options.mounts}
    found = [*map(parse_volumes_from, options.volumes_from), *options.mounts]
    if options.security.labels:
        found = [mount.replace(selinux=options.security.labels) if mount.relabel else mount for mount in found]
    for path in image.volumes:
        target = clean_target("/" + path.lstrip("/"))
        if target not in taken:
            taken.add(target)
            found.append(MountRequest(kind="volume", target=target, implied=True))
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


def _check_propagation(request: MountRequest, source: str) -> None:
    """Mounts can only be passed on where the source's own mount does so; else asking for that would be met in silence.

    Raises:
        InvalidArgument: it does not.
    """
    wanted = request.propagation.removeprefix("r")
    if wanted not in ("shared", "slave"):
        return
    fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        place = os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    inside = [
        mount for mount in mountinfo() if mount.mount_point == "/" or f"{place}/".startswith(f"{mount.mount_point}/")
    ]
    mount = max(reversed(inside), key=lambda mount: len(mount.mount_point))  # the last one on a place hides the others
    kinds = {text.partition(":")[0] for text in mount.optional}
    if "shared" in kinds or (wanted == "slave" and "master" in kinds):
        return
    what = "a shared mount" if wanted == "shared" else "a shared or slave mount"
    raise InvalidArgument(f"path {source} is mounted on {mount.mount_point} but it is not {what}")


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
    """Make every request ready to mount, and note in the container's mounts.json what is attached to it.

    Args:
        engine: whose volumes.
        requests: of `wanted_mounts`.
        source: the container's root file system, which empty volumes are filled from.
        directory: the container; volumes are noted on its record before they are made.
        undo: gets a step for what is made for this container alone.

    Raises:
        HutchError: a source that is not there, or that cannot be used so.
    """
    found = []
    noted: list[MountRequest] = []
    for request in _expanded(engine, requests):
        if request.kind == "bind":
            path = bind_source(request, cwd=_cwd(request.source))
            _check_propagation(request, path)
            noted.append(request.replace(source=path))
            found.append(Attached(request=request, source=path))
        elif request.kind == "tmpfs":
            found.append(Attached(request=request))
        elif request.kind == "volume":
            found.append(_volume(engine, request, source, directory, undo, noted))
    if noted:
        mountrecord.write(directory, noted)
    if engine.facts.selinux_contexts is not None:
        _label(engine.facts.selinux_contexts, found, directory)
    return found


def _label(contexts: Contexts, found: list[Attached], directory: ContainerDirectory) -> None:
    """Give SELinux labels to what is marked :z or :Z, and to hutch's own files, which any container may read."""
    from hutch.engine.selinux import file_label, relabel

    container_id = directory.record.id
    for one in found:
        request = one.request
        if request.relabel and one.source:
            relabel(one.source, file_label(request.selinux, container_id, contexts, shared=request.relabel == "z"))
    if contexts.file:
        own = file_label((), container_id, contexts, shared=True)
        for name in ("hosts", "hostname", "resolv.conf", "machine-id"):
            if os.path.lexists(f"{directory.path}/{name}"):
                relabel(f"{directory.path}/{name}", own)


def _expanded(engine: Engine, requests: tuple[MountRequest, ...]) -> list[MountRequest]:
    """With --volumes-from replaced by what those containers have; what the user says of a place himself goes first."""
    if all(request.kind != "from" for request in requests):
        return list(requests)
    by_target = {request.target: request for request in requests if request.implied}
    for asked in requests:
        if asked.kind == "from":
            with engine.containers.find(asked.source) as other:
                mounted = mountrecord.read(other)
            for mount in mounted:
                # Its volumes are filled, and its sources there: nothing is to be made for us.
                by_target[mount.target] = mount.replace(
                    read_only=mount.read_only or asked.read_only,
                    copy_up=False,
                    create_source=False,
                    relabel=asked.relabel,
                    selinux=asked.selinux,
                )
    by_target.update(
        (request.target, request) for request in requests if not request.implied and request.kind != "from"
    )
    return list(by_target.values())


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
        key = f"{directory.record.id}-{len(found)}"
        chain_ids = find(request.source)
        directory.record.snapshots.append(key)
        directory.save(durable=False)
        undo.add(_removal(engine, key))
        rootfs = engine.snapshots.prepare(key, chain_ids)
        if request.subpath:
            rootfs = _image_part(rootfs, request)
        if rootfs.upper:
            uppers.append(rootfs.upper)
        mount = rootfs.mounts[0]
        access = ["ro"] if request.read_only else []
        options = [*mount["options"], "nosuid", "nodev", *access]
        found.append({**mount, "destination": request.target, "options": options})
    return found, uppers


def _image_part(rootfs: Rootfs, request: MountRequest) -> Rootfs:
    """The same with a directory of the image as its root: the overlay of that directory of each layer.

    Links in the path are followed inside the image.

    Raises:
        InvalidArgument: the image has no such directory, or one that overlay cannot name.
    """
    mount = rootfs.mounts[0]
    whole = rootfs.lowers if rootfs.upper else (mount["source"],)
    with LayersView(whole, rootfs.whiteouts) as view:
        found = view.directories(request.subpath)
    where = f"image {request.source}: subpath {request.subpath}"
    if not found:
        raise InvalidArgument(f"{where}: no such directory")
    if not rootfs.upper:
        return Rootfs(({**mount, "source": found[0]},), "", found, rootfs.whiteouts)
    if any(char in path for path in found for char in ":,\\"):  # a name of several parts could be one of the host
        raise InvalidArgument(f"{where}: an overlay cannot have ':', ',' or '\\' in its path")
    like(found[0], rootfs.upper)
    lower = f"lowerdir={':'.join(found)}"
    options = [lower if option.startswith("lowerdir=") else option for option in mount["options"]]
    return Rootfs(({**mount, "options": options},), rootfs.upper, found, rootfs.whiteouts)


def _removal(engine: Engine, key: str) -> Callable[[], None]:
    return lambda: engine.snapshots.remove(key)


def _volume(
    engine: Engine,
    request: MountRequest,
    source: RootSource,
    directory: ContainerDirectory,
    undo: Undo,
    noted: list[MountRequest],
) -> Attached:
    labels = dict(label.partition("=")[::2] for label in request.labels)

    def announce(name: str) -> None:
        record = directory.record
        if request.source:
            record.mounted_volumes = sorted({*record.mounted_volumes, name})
        else:
            record.volumes.append(name)
            undo.add(lambda: _remove_volume(engine, name))
        directory.save(durable=False)
        noted.append(request.replace(source=name))

    volume = engine.volumes.create(
        request.source, labels=labels, options=dict(request.volume_options), announce=announce
    )
    if (mount := volume.mount) is not None:
        return _mounted(engine, volume.name, mount, request, source)
    if request.copy_up:
        _fill(volume.path, source, request.target)
    if request.subpath:
        _check_subpath(volume, request.subpath)
    return Attached(request=request, source=volume.path)


def _mounted(engine: Engine, name: str, mount: LocalMount, request: MountRequest, source: RootSource) -> Attached:
    """A volume with driver options: the runtime mounts what they say, in the container alone."""
    request = request.replace(
        read_only=request.read_only or mount.read_only, options=(*mount.switches, *request.options)
    )
    if mount.kind == "bind":
        if not os.path.lexists(mount.device):
            raise InvalidArgument(f"volume {name}: failed to mount: {mount.device}: no such file or directory")
        recursive = request.recursive if mount.recursive else "disabled"
        propagation = mount.propagation or request.propagation
        return Attached(request=request.replace(recursive=recursive, propagation=propagation), source=mount.device)
    if request.subpath:
        raise NotSupported(f"volume {name}: volume-subpath: not of a {mount.kind} volume")
    data = list(mount.data)
    if mount.kind == "nfs":
        if engine.facts.rootless:
            raise NotSupported(f"volume {name}: only root can mount {mount.fstype}")
        data = [_resolved(name, word) for word in data]
    elif request.copy_up:
        with source.view() as view:
            filled = view.directories(request.target)
        # What the image has there, with its mode, or else room for everybody.
        if filled:
            data.append("tmpcopyup")
        elif not any(word.startswith("mode=") for word in data):
            data.append("mode=1777")
    return Attached(request=request, source=mount.device, fstype=mount.fstype, data=tuple(data))


def _resolved(name: str, word: str) -> str:
    """The kernel resolves no names: addr= of a volume becomes an address."""
    key, _, host = word.partition("=")
    if key != "addr":
        return word
    from socket import getaddrinfo

    try:
        address = getaddrinfo(host, None)[0][4][0]
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", "") or "not a host name").lower()
        raise Unavailable(f"volume {name}: {word}: {reason}") from None
    return f"{key}={address}"


def _check_subpath(volume: Volume, subpath: str) -> None:
    """Say early, and in the user's words, that there is no such path; the runtime looks it up again when it mounts."""
    with Root.at(volume.path) as root:
        try:
            os.close(root.open(subpath, os.O_PATH))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise InvalidArgument(f"volume {volume.name}: subpath {subpath}: {reason}") from None


def _remove_volume(engine: Engine, name: str) -> None:
    try:
        engine.volumes.remove(name)
    except NotFound:
        pass


def _fill(path: str, source: RootSource, target: str) -> None:
    """Copy what the image has at `target` into an empty volume."""
    from hutch.volume import copyup

    def layers() -> tuple[str, ...]:
        with source.view() as view:
            return view.directories(target)

    try:
        with Interruptions(allowed=True):
            copyup.fill(path, layers, source.form)
    except BaseException:
        copyup.forget(path)
        raise


def volumes_in_use(engine: Engine) -> dict[str, list[str]]:
    """The volumes that containers have, running or not: name → ids. It does not call the volume store."""
    found: dict[str, list[str]] = {}
    for directory in engine.containers.all():
        with directory:
            record = directory.record
            names = {*record.volumes, *record.mounted_volumes}
            if record.status == "dead":  # its record is damaged, but what it had is noted elsewhere too
                names = {mount.source for mount in mountrecord.read(directory) if mount.kind == "volume"}
            for name in names:
                found.setdefault(name, []).append(record.id)
    return found


def remove_volume(engine: Engine, name: str, *, but: str = "") -> None:
    """Remove a volume unless a container uses it.

    Args:
        engine: whose.
        name: of the volume.
        but: id of a container that does not count.

    Raises:
        NotFound, Conflict, InvalidState: see `VolumeStore.remove`.
    """
    engine.volumes.remove(name, users=lambda: [user for user in volumes_in_use(engine).get(name, []) if user != but])
