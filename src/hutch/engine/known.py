"""What `run` needs of an image it has found before, in one small file: no parser of manifests is imported for it.

    known/<name as the user wrote it>.json

A note says which state of the store's list of images it was made from. Every change of that list (pull, tag, rmi, load)
replaces the file index.json, and with it every note made before is void. A note is a copy of what the strict readers
understood, never a second reading; whatever is wrong with one, the image is looked up again. That the layers are there
is checked each time, by `hutch.engine.images`.
"""

from __future__ import annotations

import os

from hutch.engine.image_settings import ImageSettings
from hutch.engine.record import Record
from hutch.errors import InvalidConfig
from hutch.runtime import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    State = tuple[int, int, int, int, int]

_VERSION = 1
_LIMIT = 1 << 20
_NAME_MAX = 200
_NOTES_MAX = 256


class FoundImage(Record):
    """What the engine needs of an image."""

    image_id: str = ""
    chain_ids: tuple[str, ...] = ()
    settings: ImageSettings = ImageSettings()


def list_state(root: str) -> State | None:
    """Which version of the list of images is in the store below `root`: changes whenever the file is replaced."""
    try:
        found = os.stat(f"{root}/content/index.json", follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def recall(root: str, text: str, domain: str) -> FoundImage | None:
    """What was noted about an image, if it still holds.

    Args:
        root: the data root.
        text: the image as the user calls it; untrusted.
        domain: the registry of a name without one, as configured; it decides what a short name means.
    """
    name = _file_name(text)
    if not name:
        return None
    try:
        found = documents.read_object(f"{root}/known/{name}", _LIMIT)
    except (FileNotFoundError, InvalidConfig):
        return None
    state = list_state(root)
    asked = {"version": _VERSION, "text": text, "domain": domain, "list": list(state or ())}
    if state is None or any(found.get(key) != value for key, value in asked.items()):
        return None
    settings = _settings(found.get("settings"))
    image_id, chain_ids = found.get("image_id"), _texts(found.get("chain_ids"))
    if settings is None or not isinstance(image_id, str) or chain_ids is None:
        return None
    return FoundImage(image_id=image_id, chain_ids=chain_ids, settings=settings)


def note(root: str, text: str, domain: str, state: State, image: FoundImage) -> None:
    """Note what was found.

    Args:
        root: the data root.
        text: the image as the user calls it.
        domain: the registry of a name without one.
        state: of the list, from before the image was looked up.
        image: what was found.
    """
    name = _file_name(text)
    if not name or list_state(root) != state:
        return
    folder = f"{root}/known"
    os.makedirs(folder, 0o700, exist_ok=True)
    _make_room(folder)
    document = {
        "version": _VERSION,
        "text": text,
        "domain": domain,
        "list": list(state),
        "image_id": image.image_id,
        "chain_ids": list(image.chain_ids),
        "settings": image.settings.asdict(),
    }
    new = f"{folder}/.{os.getpid()}-{os.urandom(4).hex()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(documents.dump_bytes(document))
    try:
        os.rename(new, f"{folder}/{name}")  # not synced: a note torn by a power cut does not parse
    except FileNotFoundError:
        return  # another process has just made room


def _file_name(text: str) -> str:
    """A file name for what a user calls an image; empty for what is too long or has unusual characters."""
    plain = text.isascii() and text.isprintable() and 0 < len(text) <= _NAME_MAX
    return text.replace("%", "%25").replace("/", "%2F") + ".json" if plain else ""


def _make_room(folder: str) -> None:
    """Forget everything when there are many notes: each costs one look-up to make again."""
    names = os.listdir(folder)
    if len(names) < _NOTES_MAX:
        return
    for name in names:
        try:
            os.unlink(f"{folder}/{name}")
        except FileNotFoundError:
            continue


def _settings(found: Any) -> ImageSettings | None:
    """Settings as `asdict` gave them, None if one has another type."""
    empty = ImageSettings().asdict()
    if not isinstance(found, dict) or found.keys() != empty.keys():
        return None
    taken: dict[str, Any] = {}
    for name, default in empty.items():
        value: Any = found[name]
        if name == "labels":
            value = _labels(value)
        elif isinstance(default, tuple):
            value = _texts(value)
        if type(value) is not type(default):
            return None
        taken[name] = value
    return ImageSettings(**taken)


def _texts(value: Any) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(text, str) for text in value) else None


def _labels(value: Any) -> tuple[tuple[str, str], ...] | None:
    pairs = [_texts(pair) for pair in value] if isinstance(value, list) else [None]
    if any(pair is None or len(pair) != 2 for pair in pairs):
        return None
    return tuple((pair[0], pair[1]) for pair in pairs if pair)
