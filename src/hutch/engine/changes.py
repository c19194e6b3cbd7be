"""What a container changed in its root file system: `hutch diff`, and the layer that `hutch commit` makes of it.

Owners are those of the image: a container with ids of its own writes those to disk, and they are told as what the
container sees. Works while it runs, and then sees one moment after the other.
"""

from __future__ import annotations

from hutch.engine.inside import Helper, Stream, read_spec, root_mounts
from hutch.engine.record import Record
from hutch.engine.rootfs import HOST_IMAGE
from hutch.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.spec.runtime import Mount, Spec


class Change(Record):
    """One changed path.

    Attributes:
        kind: A for added, C for changed, D for deleted.
        path: absolute.
    """

    kind: str
    path: bytes


def diff(engine: Engine, directory: ContainerDirectory) -> list[Change]:
    """The changes, in the order of their names, as `docker diff` has them.

    Directories in which something changed are listed too. What the engine itself put there for its mounts is not.

    Args:
        engine: whose container.
        directory: the container.

    Raises:
        NotSupported: its root is a directory of the host's: there is nothing to compare with.
    """
    found = bytearray()
    with Helper(_task(engine, directory)) as helper:
        helper.ask("diff")
        for chunk in Stream(helper):
            found += chunk
    lines = bytes(found).split(b"\0")[:-1]
    return [Change(kind=line[:1].decode(), path=line[2:]) for line in lines]


def open_layer(engine: Engine, directory: ContainerDirectory) -> Stream:
    """The changes as an uncompressed OCI layer; a context manager. OCI image-spec layer.md.

    Raises:
        NotSupported: as `diff`.
    """
    helper = Helper(_task(engine, directory))
    helper.ask("layer")
    return Stream(helper, helper.close)


def _task(engine: Engine, directory: ContainerDirectory) -> dict[str, Any]:
    spec = read_spec(directory)
    mounts = root_mounts(engine, directory)
    parts = [_overlay(entry) for entry in _own_mounts(mounts, directory) if entry["type"] == "overlay"]
    record = directory.record
    if not parts and record.image_id:  # a plain copy of its layers
        rootfs = engine.snapshots.prepare(record.id, record.chain_ids)
        copy = {"destination": "", "upper": mounts[0]["source"], "lowers": list(rootfs.lowers), "whole": True}
        parts = [{**copy, "form": rootfs.whiteouts}]
    if not parts:
        raise NotSupported("the container's root file system is a directory of the host: its changes are not recorded")
    for part in parts:
        for key in ("destination", "upper"):
            part[key] = _crossing(part[key])
        part["lowers"] = [_crossing(path) for path in part["lowers"]]
    return {"kind": "layers", "parts": parts, "mount_points": _mount_points(spec, mounts), "maps": _maps(spec)}


def _own_mounts(mounts: list[Mount], directory: ContainerDirectory) -> list[Mount]:
    """Without the images that are mounted into it besides its own."""
    if directory.record.image == HOST_IMAGE:
        return mounts
    return [entry for entry in mounts if entry["destination"] == "/"]


def _overlay(entry: Mount) -> dict[str, Any]:
    options: dict[str, str] = {}
    for option in entry["options"]:
        key, _, value = option.partition("=")
        options[key] = value
    form = "user" if "userxattr" in options else "trusted"
    return {
        "destination": "" if entry["destination"] == "/" else entry["destination"],
        "upper": options["upperdir"],
        "lowers": options["lowerdir"].split(":"),
        "form": form,
        "whole": False,
    }


def _mount_points(spec: Spec, root: list[Mount]) -> list[str]:
    places = [entry["destination"] for entry in (*(spec.get("mounts") or []), *root)]
    return [_crossing(place) for place in places if place != "/"]


def _maps(spec: Spec) -> dict[str, list[list[int]]]:
    """The container's id maps, as host root sees them; an ordinary user's files are seen through his own."""
    from hutch.snapshot import idmap

    if idmap.needs_user_namespace():
        return {}
    linux = spec.get("linux") or {}
    return {
        "uids": [[one["containerID"], one["hostID"], one["size"]] for one in linux.get("uidMappings") or []],
        "gids": [[one["containerID"], one["hostID"], one["size"]] for one in linux.get("gidMappings") or []],
    }


def _crossing(path: str) -> str:
    """A path as the helper takes it: Latin-1, byte for byte."""
    return path.encode("utf-8", "surrogateescape").decode("latin-1")
