"""From RunOptions to a container that only has to be started: its record, root file system, files and config.json.

    reserve id and name → find the image → root file system → user, storage, devices, id maps → spec → config.json

Every step registers how it is undone, so that a failure at any point leaves nothing behind.
"""

from __future__ import annotations

import os

from hutch.engine import devices as device_files
from hutch.engine import events, hostfiles, inits, specgen, storage
from hutch.engine.containers import CONFIG, ROOT_MOUNTS, ContainerDirectory, write_atomically
from hutch.engine.healthchecks import healthcheck
from hutch.engine.ids import host_id
from hutch.engine.image_settings import ImageSettings
from hutch.engine.joining import joined_namespaces
from hutch.engine.lifecycle import sweep
from hutch.engine.mounts import MountFacts
from hutch.engine.record import Record
from hutch.engine.rootfs import RootSource, root_source
from hutch.engine.undo import Interruptions
from hutch.engine.userns import IdMaps, id_maps
from hutch.engine.users import resolve_user
from hutch.errors import InvalidArgument, NotSupported
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerRecord
    from hutch.engine.engine import Engine
    from hutch.engine.images import Pulling
    from hutch.engine.inits import InitSystem
    from hutch.engine.options import RunOptions
    from hutch.engine.rootview import LayersView
    from hutch.engine.undo import Undo
    from hutch.engine.users import ContainerUser
    from hutch.spec.runtime import LinuxSeccomp, Mount, Spec

HOST_FILES = (("/etc/hosts", "hosts"), ("/etc/hostname", "hostname"), ("/etc/resolv.conf", "resolv.conf"))


class Prepared(Record):
    """A container that only has to be started.

    Attributes:
        directory: locked; the holder closes it.
        root_mounts: what makes the root file system.
        warnings: what the user should be told.
    """

    directory: ContainerDirectory
    spec: Spec
    root_mounts: tuple[Mount, ...]
    source: RootSource
    warnings: tuple[str, ...]


def prepare(
    engine: Engine,
    options: RunOptions,
    *,
    console: tuple[int, int] | None,
    undo: Undo,
    pulling: Pulling | None = None,
) -> Prepared:
    """Make everything that a container needs before it is created.

    Args:
        engine: where.
        options: checked.
        console: (rows, columns) of the caller's terminal.
        undo: gets a step for everything done.
        pulling: what to tell of a pull.

    Raises:
        HutchError: see the parts.
    """
    with Interruptions(allowed=False):
        return _prepare(engine, options, console, undo, pulling)


def _prepare(
    engine: Engine, options: RunOptions, console: tuple[int, int] | None, undo: Undo, pulling: Pulling | None
) -> Prepared:
    engine.prepare_directories()
    warnings = sweep(engine)
    engine.database.hold_reserve()
    directory = engine.containers.create(options.name)
    undo.add(lambda: engine.containers.remove(directory))
    maps = id_maps(options, engine.facts, lambda: _take_range(engine, directory, undo), root=engine.root)
    source = root_source(engine, options, directory, pulling=pulling)
    if source.discard:
        undo.add(source.discard)
    warnings += maps.warnings
    with source.view() as view:
        user = resolve_user(options.user or source.settings.user, options.group_add, view)
        init = _init_system(options, source, view)
    if init:
        if init.reboots and inits.may_reboot(options, engine.facts, userns=bool(maps.uids)):
            options = options.replace(cap_add=(*options.cap_add, "SYS_BOOT"))
        stop_signal = options.stop_signal or source.settings.stop_signal or init.stop_signal
        options = options.replace(stop_signal=stop_signal, cgroupns=options.cgroupns or "private")
    user = _mapped(user, options, maps)
    hostname = _hostname(options, directory.record.id)
    directory.record.joined = _joined(engine, options)
    rootfs = source.path or f"{directory.path}/rootfs"
    others, more_uppers = storage.image_mounts(
        engine, options.mounts, directory, undo, lambda name: _chain_ids(engine, directory, name, options, pulling)
    )
    if others and source.path:
        raise NotSupported("--mount type=image: not with --rootfs", hint="put an overlay over it: --rootfs DIR:O")
    root_mounts = (*source.mounts, *others)
    if maps.idmapped:
        _own_uppers((*source.uppers, *more_uppers), maps)
    resolved = specgen.Resolved(
        facts=engine.facts,
        user=user,
        env=_environment(options, directory.record.id if init else ""),
        uid_mappings=maps.uids,
        gid_mappings=maps.gids,
        seccomp=_seccomp(options, engine, source.settings),
        apparmor=_apparmor(options, engine),
        console=console,
        **_attached(engine, options, source, directory, maps, undo, init=init),
    )
    places = specgen.Places(
        container_id=directory.record.id,
        rootfs=rootfs,
        hostname=hostname,
        cgroup=_cgroup(options, engine, directory.record.id),
        joined=tuple(joined_namespaces(engine, directory.record.joined).items()),
    )
    spec = specgen.make_spec(options, source.settings, resolved, places, warnings)
    if not source.path:
        os.mkdir(rootfs, 0o755)
    root_mounts = _idmapped(root_mounts) if maps.idmapped else root_mounts
    _record(directory.record, options, source, spec, hostname)
    for name, document in ((CONFIG, spec), (ROOT_MOUNTS, {"mounts": list(root_mounts)})):
        write_atomically(directory.fd, name, documents.dump_bytes(document, "  "), durable=not options.rm)
    directory.save(durable=not options.rm)
    events.publish(engine.database, directory.record, "create")
    return Prepared(
        directory=directory,
        spec=spec,
        root_mounts=root_mounts,
        source=source,
        warnings=tuple(warnings),
    )


def _take_range(engine: Engine, directory: ContainerDirectory, undo: Undo) -> int:
    from hutch.engine import idranges

    container_id = directory.record.id
    start = idranges.take(engine.root, container_id)
    undo.add(lambda: idranges.give_back(engine.root, start, container_id))
    directory.record.first_id = start
    directory.save(durable=False)  # what is noted is given back even if we are killed now
    return start


def _chain_ids(
    engine: Engine, directory: ContainerDirectory, name: str, options: RunOptions, pulling: Pulling | None
) -> tuple[str, ...]:
    from hutch.engine.images import claim_image

    found = claim_image(engine, directory, name, pull=options.pull, platform="", pulling=pulling, mounted=True)
    return found.chain_ids


def _own_uppers(uppers: tuple[str, ...], maps: IdMaps) -> None:
    """Give the directories that get the container's writes to its own ids: those are not mapped on the way to disk."""
    for upper in uppers:
        found = os.lstat(upper)
        first = maps.uids[0]["hostID"]
        if found.st_uid < first:
            os.chown(upper, first + found.st_uid, first + found.st_gid, follow_symlinks=False)


def _idmapped(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """The root's mounts, with the ids of the files below them shown as the container's."""
    return tuple(
        {**mount, "options": [*mount["options"], "idmap"]} if mount["type"] in ("overlay", "bind") else mount
        for mount in mounts
    )


def _hostname(options: RunOptions, container_id: str) -> str:
    if options.hostname:
        return options.hostname
    return os.uname().nodename if "host" in (options.network, options.uts) else container_id[:12]


def _environment(options: RunOptions, booted: str) -> tuple[tuple[str, str | None], ...]:
    """The user's; in a system container, whose id `booted` is, after what its init is told."""
    from hutch.engine.values import resolve_env

    told = inits.environment(booted) if booted else ()
    return (*told, *resolve_env(options.env, os.environ).items())


def _init_system(options: RunOptions, source: RootSource, view: LayersView) -> InitSystem | None:
    """The init that the container starts, None if it starts something else."""
    if options.systemd == "false" or options.init:
        return None
    args = specgen.command(options, source.settings)
    if options.systemd == "auto" and not inits.is_candidate(args):
        return None
    return inits.init_system(args, view)


def _mapped(user: ContainerUser, options: RunOptions, maps: IdMaps) -> ContainerUser:
    """The user as the id maps let it be; an id that they lack fails now, with the reason, rather than in setuid(2)."""
    host_id(user.uid, list(maps.uids))
    if maps.single:  # setgroups(2) is denied: the groups stay the caller's own
        if options.group_add:
            raise NotSupported("--group-add: needs subordinate ids", hint="add ranges to /etc/subuid and /etc/subgid")
        host_id(user.gid, list(maps.gids))
        return user.replace(groups=())
    for gid in (user.gid, *user.groups):
        host_id(gid, list(maps.gids))
    return user


def _cgroup(options: RunOptions, engine: Engine, container_id: str) -> str:
    if not engine.facts.delegated:
        return ""
    if engine.facts.rootless:
        from hutch.engine.delegation import check_parent

        check_parent(options.cgroup_parent)
        return f"/{container_id}"  # a place for limits to go to; the monitor says where it is, at each start
    parent = options.cgroup_parent or "/hutch"
    if ".." in parent.split("/"):
        raise InvalidArgument(f"invalid cgroup parent: {parent}")
    return f"/{parent.strip('/')}/{container_id}"


def _joined(engine: Engine, options: RunOptions) -> dict[str, str]:
    """The containers whose namespaces it shares, for container:NAME; they are looked up again at each start."""
    found = {}
    for kind, mode in (("pid", options.pid), ("network", options.network)):
        if mode.startswith("container:"):
            with engine.containers.find(mode.removeprefix("container:")) as other:
                found[kind] = other.record.id
    return found


def _seccomp(options: RunOptions, engine: Engine, image: ImageSettings) -> LinuxSeccomp | None:
    from hutch.engine import security

    wanted = options.security.seccomp
    if wanted == "unconfined" or (options.privileged and not wanted):
        return None
    from hutch.engine import seccomp_profile

    granted = frozenset(security.capabilities(options, engine.facts.permitted))
    return seccomp_profile.for_container(
        wanted, granted, architecture=image.architecture, compat=options.security.profile == "compat"
    )


def _apparmor(options: RunOptions, engine: Engine) -> str:
    if not engine.facts.apparmor and not options.security.apparmor:
        return ""
    from hutch.engine import apparmor

    return apparmor.profile_for(options, engine.facts, engine.state)


def _attached(
    engine: Engine,
    options: RunOptions,
    source: RootSource,
    directory: ContainerDirectory,
    maps: IdMaps,
    undo: Undo,
    *,
    init: InitSystem | None,
) -> dict[str, Any]:
    hostname = _hostname(options, directory.record.id)
    texts = {
        "hosts": hostfiles.hosts(options, hostname),
        "hostname": hostfiles.hostname_file(hostname),
        "resolv.conf": hostfiles.resolv_conf(options),
    }
    files = list(HOST_FILES)
    if init:
        texts["machine-id"] = inits.machine_id(directory.record.id)
        files.append(("/etc/machine-id", "machine-id"))
    hostfiles.write_files(directory.path, texts, maps.root_owner)
    requests = storage.wanted_mounts(options, source.settings)
    attached = storage.attach(engine, requests, source, directory, undo)
    if maps.idmapped:
        attached = [piece.replace(idmap=bool(piece.source)) for piece in attached]
    nodes = device_files.device_nodes(device_files.requested(options))
    binds = device_files.device_binds(nodes) if maps.uids else []
    if options.init:
        from hutch.engine.container_init import init_mount

        binds.append(init_mount(directory.path, specgen.INIT_PATH))
    more = inits.mounts(init, engine.facts) if init else []
    return {
        "devices": () if maps.uids else tuple(device for _, device in nodes),
        "mounts": MountFacts(
            userns=bool(maps.uids),
            host_mqueue=os.path.isdir("/dev/mqueue"),
            tty_gid_mapped=maps.has_gid(5),
            files=tuple((destination, f"{directory.path}/{name}") for destination, name in files),
            attached=tuple(attached),
            extra=(*more, *binds),
        ),
    }


def _record(record: ContainerRecord, options: RunOptions, source: RootSource, spec: Spec, hostname: str) -> None:
    process = spec["process"]
    record.image = options.image or options.rootfs
    record.image_id, record.chain_ids = source.image_id, list(source.chain_ids)
    record.options = plain(options)
    record.command, record.environment = list(process["args"]), list(process.get("env") or [])
    record.working_dir, record.user = process["cwd"], options.user or source.settings.user
    record.hostname = hostname
    record.labels = {**dict(source.settings.labels), **dict(options.labels)}
    record.interactive, record.tty = options.interactive, options.tty
    record.auto_remove = options.rm
    record.stop_signal = options.stop_signal or source.settings.stop_signal
    record.stop_timeout = options.stop_timeout
    record.restart = {"Name": options.restart.name, "MaximumRetryCount": options.restart.retries}
    record.healthcheck = healthcheck(options.health, source.settings)
    record.log_driver = options.log_driver or "json-file"
    record.log_options = dict(options.log_options)


def plain(value: Any) -> Any:
    """Options as JSON has them."""
    if isinstance(value, Record):
        return {name: plain(found) for name, found in value.asdict().items()}
    if isinstance(value, (tuple, list)):
        return [plain(found) for found in value]
    return value
