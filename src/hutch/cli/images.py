"""`hutch image ls` (`hutch images`): the images of this host."""

from __future__ import annotations

import time

from hutch.cli.command import Command
from hutch.cli.flags import Flag
from hutch.cli.messages import warn
from hutch.cli.output import ago, human_size, render
from hutch.engine.engine import Engine
from hutch.engine.image_filters import image_filter
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hutch.image.image import Image
    from hutch.image.reference import Reference

_NONE, _NOT_COUNTED = "<none>", "N/A"
_REPOSITORY, _TAG, _DIGEST = ("REPOSITORY", "Repository"), ("TAG", "Tag"), ("DIGEST", "Digest")
_REST = (("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size"))


def _run(given: dict[str, Any], arguments: list[str], general: dict[str, Any]) -> int:
    engine = Engine(general["root"], general["state"])
    matches = image_filter(engine, given["filter"], pattern=arguments[0] if arguments else "")
    rows, seen = [], set()
    for image in engine.images.images():
        if not matches(image):
            continue
        for repository, tag, digest in _names(image, matches.names(image), digests=given["digests"]):
            if given["quiet"] and image.id in seen:
                continue
            seen.add(image.id)
            rows.append(_row(engine, image, repository, tag, digest, full=given["no_trunc"]))
    columns = (_REPOSITORY, _TAG, *((_DIGEST,) if given["digests"] else ()), *_REST)
    if given["quiet"] and given["format"]:
        raise InvalidArgument("conflicting options: --quiet and --format")
    text = render(rows, given["format"], columns, quiet_key="ID" if given["quiet"] else "")
    if text:
        print(text)
    for name, problem in engine.images.broken():
        warn(f"image {name}: {problem}")
    return 0


def _names(image: Image, names: tuple[Reference, ...], *, digests: bool) -> list[tuple[str, str, str]]:
    """(repository, tag, digest) of each line that an image takes, as Docker lists them."""
    served: dict[str, list[str]] = {}
    for name in image.digests:
        served.setdefault(name.familiar_name, []).append(name.digest or _NONE)
    rows = []
    for name in names:
        found = served.get(name.familiar_name, [_NONE])
        rows += [(name.familiar_name, name.tag or _NONE, digest) for digest in (found if digests else found[:1])]
    if not rows:
        rows = [(repository, _NONE, digest) for repository, found in served.items() for digest in found]
    return rows or [(_NONE, _NONE, _NONE)]


def _row(engine: Engine, image: Image, repository: str, tag: str, digest: str, *, full: bool) -> dict[str, Any]:
    created, size = image.config.created, unpacked_size(engine, image)
    return {
        "Containers": _NOT_COUNTED,
        "ID": image.id if full else image.id.partition(":")[2][:12],
        "Repository": repository,
        "Tag": tag,
        "Digest": digest,
        "CreatedSince": f"{ago(created, time.time())} ago" if created else "N/A",
        "CreatedAt": f"{created[:19].replace('T', ' ')} +0000 UTC" if created else "N/A",
        "Size": human_size(size, 3),
        "SharedSize": _NOT_COUNTED,
        "UniqueSize": _NOT_COUNTED,
        "VirtualSize": human_size(size),
        "Platform": str(image.platform),
    }


def unpacked_size(engine: Engine, image: Image) -> int:
    """Bytes of an image's layers when unpacked, as their archives count them."""
    return sum(engine.snapshots.info(chain).size for chain in image.chain_ids if engine.snapshots.has(chain))


COMMAND = Command(
    "images",
    arguments="[REPOSITORY[:TAG]]",
    summary="List images",
    flags=(
        Flag("all", "", "as without it: no image is hidden", short="a"),
        Flag("digests", "", "show the digests that registries served them by"),
        Flag("filter", "filter...", "before=, since=, dangling=, label=, reference=, until=", short="f"),
        Flag("format", "template", "table, json or a template such as '{{.Repository}}:{{.Tag}}'", default=""),
        Flag("no-trunc", "", "print ids in full"),
        Flag("quiet", "", "print ids alone", short="q"),
    ),
    run=_run,
    example="hutch image ls --digests --filter reference='debian*'",
    most=1,
)
