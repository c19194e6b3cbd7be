"""Whether images, their blobs and layers, and volumes are whole."""

from __future__ import annotations

import os
from contextlib import suppress

from hutch.engine.checks.finding import Finding, set_aside
from hutch.errors import HutchError, InvalidConfig
from hutch.image import digest as digests
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hutch.engine.engine import Engine

_CHUNK = 1 << 20
_LAYOUT_LIMIT, _LAYOUT_VERSION = 4096, "1.0.0"


def check_lists(engine: Engine) -> Iterator[Finding]:
    """The list of images, and the file that says that content/ is an OCI layout."""
    layout = f"{engine.root}/content/oci-layout"
    if os.path.exists(layout):
        try:
            if documents.read_object(layout, _LAYOUT_LIMIT).get("imageLayoutVersion") != _LAYOUT_VERSION:
                raise InvalidConfig("not of version 1.0.0")
        except (HutchError, OSError):
            yield Finding("content/oci-layout: damaged", lambda: _new_layout(engine, layout))
    try:
        engine.images.images()
    except HutchError as error:
        text = str(error).removeprefix(f"{engine.root}/")
        yield Finding(text, lambda: _new_list(engine), hint="with --repair the images are listed anew, without names")


def _new_layout(engine: Engine, layout: str) -> str:
    os.unlink(layout)
    engine.forget_images()
    engine.images  # noqa: B018 - opening the store writes it
    return "wrote it anew"


def _new_list(engine: Engine) -> str:
    """Every manifest there is, as an image without a name: what no list names would be collected."""
    from hutch.image.manifest import MAX_MANIFEST_BYTES, Descriptor, Manifest, parse_manifest

    aside = set_aside(engine.root, f"{engine.root}/content/index.json")
    engine.forget_images()
    content, count = engine.images.content, 0
    for digest in list(content.digests()):
        if (size := content.size(digest)) > MAX_MANIFEST_BYTES:
            continue
        try:
            manifest = parse_manifest(content.read(digest, MAX_MANIFEST_BYTES))
            if isinstance(manifest, Manifest):
                engine.images.add((), Descriptor(media_type=manifest.media_type, digest=digest, size=size))
                count += 1
        except HutchError:
            continue  # a configuration, a small layer, or damaged
    return (
        f"listed the {count} images that are there without their names: hutch tag gives names; the old list is {aside}"
    )


def check_blobs(engine: Engine) -> Iterator[Finding]:
    """Every blob against its digest; this reads all of them."""
    content = engine.images.content
    for digest in list(content.digests()):
        hasher = digests.hasher(digest)
        try:
            with open(content.path(digest), "rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    hasher.update(chunk)
        except FileNotFoundError:
            continue  # collected meanwhile
        except OSError as error:
            yield Finding(f"blob {digest}: {os.strerror(error.errno or 0).lower()}")
            continue
        if hasher.hexdigest() != digest.partition(":")[2]:
            yield Finding(f"blob {digest}: its content has another digest", _aside(engine, content.path(digest)))


def _aside(engine: Engine, path: str) -> Callable[[], str]:
    return lambda: f"moved it to {set_aside(engine.root, path)}; pull or load its image again"


def check_layers(engine: Engine) -> Iterator[Finding]:
    """Layers whose completion marker is missing or is not what was written."""
    folder = f"{engine.root}/layers"
    if not os.path.isdir(folder):
        return
    used = _chains_in_use(engine)
    for name in sorted(os.listdir(folder)):
        chain_id = name.replace("-", ":", 1)
        try:
            engine.snapshots.info(chain_id)
        except HutchError as error:
            if not os.path.lexists(f"{folder}/{name}"):
                continue
            users = used.get(chain_id, [])
            if users:
                hint = f"pull its image again; container {', '.join(users)} stands on it"
                yield Finding(f"layer {chain_id}: not complete: {error}", hint=hint)
            else:
                yield Finding(f"layer {chain_id}: not complete: {error}", _aside(engine, f"{folder}/{name}"))


def _chains_in_use(engine: Engine) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for directory in engine.containers.all():
        with directory:
            record = directory.record
            for chain_id in {*record.chain_ids, *(one for chain in record.mounted_images.values() for one in chain)}:
                found.setdefault(chain_id, []).append(record.name)
    return found


def check_images(engine: Engine) -> Iterator[Finding]:
    """Images that cannot be read, or whose layers are not all unpacked; and containers whose layers are gone."""
    for name, problem in engine.images.broken():
        yield Finding(f"image {name}: {problem}", hint=f"pull or load it again, or remove it: hutch image rm {name}")
    for image in engine.images.images():
        missing = [chain_id for chain_id in image.chain_ids if not engine.snapshots.has(chain_id)]
        if missing:
            name = image.references[0].familiar() if image.references else image.id
            yield Finding(f"image {name}: layer {missing[0]} is not unpacked", hint="pull or load it again")
    for directory in engine.containers.all():
        with directory:
            record = directory.record
            missing = [chain_id for chain_id in record.chain_ids if not engine.snapshots.has(chain_id)]
            if missing:
                hint = f"pull or load {record.image} again"
                yield Finding(f"container {record.name}: layer {missing[0]} of its image is gone", hint=hint)


def check_volumes(engine: Engine) -> Iterator[Finding]:
    """Volumes whose record or data are damaged."""
    for name, problem in engine.volumes.broken():
        path = f"{engine.root}/volumes/{name}"
        mend = _volume_record(engine, name) if os.path.isdir(f"{path}/_data") else None
        yield Finding(str(problem), mend, hint=problem.hint)


def _volume_record(engine: Engine, name: str) -> Callable[[], str]:
    def mend() -> str:
        record = f"{engine.root}/volumes/{name}/volume.json"
        aside = ""
        with suppress(FileNotFoundError):
            aside = set_aside(engine.root, record)
        engine.volumes.restore(name)
        kept = f"; the damaged one is {aside}" if aside else ""
        return f"wrote a new record, without labels and options; its data are as they were{kept}"

    return mend
