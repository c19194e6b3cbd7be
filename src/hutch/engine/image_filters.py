"""The filters of `image ls` and `image prune`, in Docker's words."""

from __future__ import annotations

from fnmatch import fnmatchcase

from hutch.engine import filters
from hutch.engine.values import parse_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hutch.engine.engine import Engine
    from hutch.image.image import Image
    from hutch.image.reference import Reference

_KEYS = ("before", "dangling", "label", "label!", "reference", "since", "until")


class ImageFilter:
    """All that an image must hold to be listed, and which of its names count."""

    def __init__(self, checks: Sequence[Callable[[Image], bool]], patterns: Sequence[str]) -> None:
        self._checks = checks
        self._patterns = patterns

    def __call__(self, image: Image) -> bool:
        """Whether the image is listed."""
        if self._patterns and not self.names(image):
            return False
        return all(check(image) for check in self._checks)

    def names(self, image: Image) -> tuple[Reference, ...]:
        """The names with a tag that a pattern admits."""
        if not self._patterns:
            return image.references
        return tuple(name for name in image.references if any(_matches(name, text) for text in self._patterns))


def image_filter(engine: Engine, given: Sequence[str], *, pattern: str = "") -> ImageFilter:
    """Compile --filter values.

    Args:
        engine: to find the images that ``before`` and ``since`` name.
        given: ``key=value`` each; different keys must all hold, of one key's references any.
        pattern: the argument of `image ls`, as ``reference=``.

    Raises:
        InvalidArgument: no such filter, or a malformed value.
        ImageNotFound: before or since name no image.
    """
    checks: list[Callable[[Image], bool]] = []
    patterns = [pattern] if pattern else []
    for key, value in filters.split(given, _KEYS):
        if key == "reference":
            patterns.append(value)
        elif key == "dangling":
            checks.append(_dangling(wanted=parse_bool(value)))
        elif key in ("label", "label!"):
            checks.append(_label(value, wanted=key == "label"))
        elif key == "until":
            checks.append(_created_until(value))
        else:
            checks.append(_relative(engine.images.get(value), before=key == "before"))
    return ImageFilter(checks, patterns)


def _dangling(*, wanted: bool) -> Callable[[Image], bool]:
    return lambda image: (not image.references) == wanted


def _label(text: str, *, wanted: bool) -> Callable[[Image], bool]:
    check = filters.label(text, wanted=wanted)
    return lambda image: check(image.config.config.labels)


def _relative(other: Image, *, before: bool) -> Callable[[Image], bool]:
    def check(image: Image) -> bool:
        if image.id == other.id:
            return False
        return (image.config.created < other.config.created) == before

    return check


def _created_until(text: str) -> Callable[[Image], bool]:
    check = filters.before(text)
    return lambda image: check(image.config.created)


def _matches(name: Reference, pattern: str) -> bool:
    """Docker's: a shell pattern over the familiar name, with or without the tag."""
    bare = name.familiar_name
    if _glob(bare, pattern) or _glob(name.familiar(), pattern):
        return True
    return _glob(name.name, pattern) or _glob(str(name), pattern)


def _glob(text: str, pattern: str) -> bool:
    """Like Go's path.Match: `*` and `?` do not cross a slash."""
    parts, wanted = text.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
