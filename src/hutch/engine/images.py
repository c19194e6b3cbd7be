"""The image of a container: found in the store, or pulled first when --pull says so."""

from __future__ import annotations

import fcntl
import os

from hutch.engine.image_settings import image_settings
from hutch.engine.known import FoundImage, list_state, note, recall
from hutch.engine.undo import Interruptions
from hutch.errors import ImageNotFound, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from hutch.engine.containers import ContainerDirectory
    from hutch.engine.engine import Engine
    from hutch.image.image import Image
    from hutch.image.platform import Platform
    from hutch.image.progress import Progress

    Pulling = Callable[[str], AbstractContextManager[Progress]]
    """Called with the image's name when a pull begins; the progress it gives is told the rest."""


_ATTEMPTS = 5


def find_image(engine: Engine, text: str, *, pull: str, platform: str, pulling: Pulling | None) -> FoundImage:
    """Get an image, pulling it if it is missing (or always, as `pull` says).

    Args:
        engine: whose store.
        text: the user's name for it.
        pull: always, missing or never.
        platform: ``os/arch[/variant]``, or empty for this machine's.
        pulling: what to tell of a pull.

    Raises:
        ImageNotFound: not here, and not to be pulled; and what `hutch.image.pull.pull` raises.
        NotSupported: it is of another platform than asked for, or than this machine can run.
    """
    domain = str(engine.configuration.get("registries", {}).get("default", ""))
    plain = not platform and pull != "always"
    if plain and (known := recall(engine.root, text, domain)) and not _missing(engine, known.chain_ids):
        return known
    state = list_state(engine.root)
    wanted = _platform(platform)
    image = None if pull == "always" else _stored(engine, text, wanted, final=pull == "never")
    stored = image is not None
    if image is None:
        image = _pulled(engine, text, wanted, pulling)
    if image.config.os != "linux":
        raise NotSupported(f"image {text}: is for {image.config.os}, not for linux")
    settings = image_settings(image.config.config, image.config.architecture)
    found = FoundImage(image_id=image.id, chain_ids=image.chain_ids, settings=settings)
    if plain and stored and state:
        note(engine.root, text, domain, state, found)
    return found


def claim_image(
    engine: Engine,
    directory: ContainerDirectory,
    text: str,
    *,
    pull: str,
    platform: str,
    pulling: Pulling | None,
    mounted: bool = False,
) -> FoundImage:
    """`find_image`, noted on the container's record, so that a concurrent removal leaves the layers alone.

    Args:
        engine: whose store.
        directory: the container, locked; its record is saved.
        text: the user's name for the image.
        pull: always, missing or never.
        platform: ``os/arch[/variant]``, or empty for this machine's.
        pulling: what to tell of a pull.
        mounted: the image is not the container's root but a mount of it.

    Raises:
        ImageNotFound: it is removed again and again; and what `find_image` raises.
    """
    for _ in range(_ATTEMPTS):
        found = find_image(engine, text, pull=pull, platform=platform, pulling=pulling)
        record = directory.record
        if mounted:
            record.mounted_images[found.image_id] = list(found.chain_ids)
        else:
            record.image_id, record.chain_ids = found.image_id, list(found.chain_ids)
        directory.save(durable=False)
        _await_collector(engine)
        if not _missing(engine, found.chain_ids):
            return found
    raise ImageNotFound(f"image {text}: somebody else keeps removing it")


def _await_collector(engine: Engine) -> None:
    """Wait for whoever removes images now: he may have read the records before ours was there.

    This is `hutch.image.lease.store_lock`, shared, without what that module imports.
    """
    fd = os.open(f"{engine.root}/content/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    from hutch.image import platform as platforms

    return platforms.parse(text)


def _stored(engine: Engine, text: str, wanted: Platform | None, *, final: bool) -> Image | None:
    """The image if the store has it, with its layers unpacked and of the right platform."""
    try:
        image = engine.images.get(text)
    except ImageNotFound:
        if final:
            raise
        return None
    if wanted is not None and not _matches(image.platform, wanted):
        if final:
            raise ImageNotFound(f"image {text}: here for {image.platform}, not for {wanted}")
        return None
    missing = _missing(engine, image.chain_ids)
    if missing and final:
        raise ImageNotFound(f"image {text}: layer {missing[0]} is not unpacked", hint="pull or load it again")
    return None if missing else image


def _missing(engine: Engine, chain_ids: tuple[str, ...]) -> list[str]:
    return [chain_id for chain_id in chain_ids if not engine.snapshots.has(chain_id)]


def _matches(have: Platform, wanted: Platform) -> bool:
    same = (have.os, have.architecture) == (wanted.os, wanted.architecture)
    return same and (not wanted.variant or have.variant == wanted.variant)


def _pulled(engine: Engine, text: str, wanted: Platform | None, pulling: Pulling | None) -> Image:
    from contextlib import nullcontext

    from hutch.image.pull import pull
    from hutch.image.reference import Reference

    reference = Reference.parse(text, default_domain=engine.registries.default)
    with Interruptions(allowed=True), pulling(text) if pulling else nullcontext() as progress:
        return pull(
            reference,
            store=engine.images,
            layers=engine.snapshots,
            registries=engine.registries,
            platform=wanted,
            progress=progress,
        )
