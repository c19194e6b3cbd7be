"""The filters of `image ls` and `image prune`, in Docker's words."""

from __future__ import annotations

import re
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hutch.engine.values import parse_bool
from hutch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hutch.engine.engine import Engine
    from hutch.image.image import Image
    from hutch.image.reference import Reference

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"\A(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ns|us|ms|s|m|h)){1,6}\Z")
_DURATION_PART = re.compile(r"([0-9.]+)(ns|us|ms|s|m|h)")


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


def image_filter(engine: Engine, filters: Sequence[str], *, pattern: str = "") -> ImageFilter:
    """Compile --filter values.

    Args:
        engine: to find the images that ``before`` and ``since`` name.
        filters: ``key=value`` each; different keys must all hold, of one key's references any.
        pattern: the argument of `image ls`, as ``reference=``.

    Raises:
        InvalidArgument: no such filter, or a malformed value.
        ImageNotFound: before or since name no image.
    """
    checks: list[Callable[[Image], bool]] = []
    patterns = [pattern] if pattern else []
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid filter '{text[:64]}'", hint="a filter is KEY=VALUE")
        if key == "reference":
            patterns.append(value)
        elif key == "dangling":
            checks.append(_dangling(wanted=parse_bool(value)))
        elif key in ("label", "label!"):
            checks.append(_label(value, wanted=key == "label"))
        elif key in ("before", "since"):
            checks.append(_relative(engine.images.get(value), before=key == "before"))
        elif key == "until":
            checks.append(_created_until(_moment(value)))
        else:
            raise InvalidArgument(f"invalid filter '{key[:64]}'")
    return ImageFilter(checks, patterns)


def _dangling(*, wanted: bool) -> Callable[[Image], bool]:
    return lambda image: (not image.references) == wanted


def _label(text: str, *, wanted: bool) -> Callable[[Image], bool]:
    key, equals, value = text.partition("=")

    def check(image: Image) -> bool:
        labels = image.config.config.labels
        return (key in labels and (not equals or labels[key] == value)) == wanted

    return check


def _relative(other: Image, *, before: bool) -> Callable[[Image], bool]:
    def check(image: Image) -> bool:
        if image.id == other.id:
            return False
        return (image.config.created < other.config.created) == before

    return check


def _created_until(moment: float) -> Callable[[Image], bool]:
    def check(image: Image) -> bool:
        created = image.config.created
        return bool(created) and created[:19] <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))

    return check


def _moment(text: str) -> float:
    """Seconds of the epoch: a Unix time, an RFC 3339 time in UTC, or a duration before now."""
    if re.match(r"\A[0-9]{1,12}\Z", text):
        return float(text)
    if _DURATION.match(text):
        return time.time() - sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"):
        try:
            from calendar import timegm

            return float(timegm(time.strptime(text.removesuffix("Z"), form)))
        except ValueError:
            continue
    raise InvalidArgument(
        f"invalid time '{text[:64]}'", hint="a duration such as 24h, a Unix time or 2026-01-31T12:00:00Z"
    )


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
