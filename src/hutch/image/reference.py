"""Image names: Docker's grammar of ``[domain/]path[:tag][@digest]``.

    alpine                        docker.io/library/alpine
    user/app:1.2                  docker.io/user/app:1.2
    localhost:5000/app@sha256:…   a registry on this machine
    ghcr.io/org/team/app:v1       any other registry

Only syntax: no registry is asked and no store is read. Grammar of the distribution project's
reference package; its rules for which first component is a domain are Docker's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hutch.errors import InvalidReference
from hutch.image import digest as digests

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255
_MAX_TEXT = _MAX_NAME + 1 + 128 + 1 + 135

# Each class of characters excludes the separators next to it, so no pattern here can backtrack.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PATH = re.compile(rf"\A{_COMPONENT}(?:/{_COMPONENT})*\Z")
_DOMAIN = re.compile(rf"\A(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"\A[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}\Z")
_IMAGE_ID = re.compile(r"\A[a-f0-9]{64}\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """One image name, normalised.

    Attributes:
        domain: host of the registry, with a port if one was given (``docker.io``, ``localhost:5000``).
        path: repository in that registry (``library/alpine``).
        tag: the tag, or None.
        digest: digest of a manifest or index, or None.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str, *, default_domain: str = DEFAULT_DOMAIN) -> Reference:
        """Parse what a user, a Dockerfile or a client gave.

        Args:
            text: untrusted.
            default_domain: registry of a name without one; only Docker's own has ``library/``.

        Raises:
            InvalidReference: not in the grammar; the message says which rule.
        """
        if not text:
            raise InvalidReference("image name: empty")
        if len(text) > _MAX_TEXT:
            raise InvalidReference(f"image name {text[:64]!r}…: longer than {_MAX_NAME} characters")
        if _IMAGE_ID.match(text):
            raise InvalidReference(f"image name {text!r}: 64 hexadecimal digits are an image id, not a name")
        rest, at, digest = text.partition("@")
        if at and not digests.is_digest(digest):
            raise _invalid(text, f"{digest[:140]!r} is not a digest", "a digest is sha256: and 64 lower-case digits")
        rest, tag = _split_tag(text, rest)
        domain, path = _split_domain(rest, default_domain)
        if domain == DEFAULT_DOMAIN and "/" not in path:
            path = _OFFICIAL + path
        if not _DOMAIN.match(domain):
            raise _invalid(text, f"{domain!r} is not a registry host")
        if not _PATH.match(path):
            if _PATH.match(path.lower()):
                raise _invalid(text, "repository name must be lower case", f"try {text.lower()!r}")
            raise _invalid(text, f"{path!r} is not a repository name")
        if len(domain) + 1 + len(path) > _MAX_NAME:
            raise InvalidReference(f"image name {text[:64]!r}…: longer than {_MAX_NAME} characters")
        return cls(domain, path, tag, digest if at else None)

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it: without ``docker.io/`` and ``library/``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        familiar = self.path if "/" in short else short
        # "docker.io/localhost/app" must not become a name in the registry "localhost".
        return familiar if _split_domain(familiar, DEFAULT_DOMAIN)[0] == DEFAULT_DOMAIN else self.name

    def __str__(self) -> str:
        return self._with_suffixes(self.name)

    def familiar(self) -> str:
        """The whole reference as people write it (``alpine:3.20``)."""
        return self._with_suffixes(self.familiar_name)

    def with_default_tag(self) -> Reference:
        """With ``:latest`` where there is neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository at another tag, without digest.

        Raises:
            InvalidReference: `tag` is not in the grammar.
        """
        if not _TAG.match(tag):
            raise InvalidReference(f"tag {tag[:140]!r}: not 1 to 128 letters, digits, '_', '.', '-'")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: str) -> Reference:
        """The same repository at a digest, without tag."""
        return replace(self, tag=None, digest=digests.check(digest))

    def _with_suffixes(self, name: str) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{name}{tag}{digest}"


def _split_tag(text: str, rest: str) -> tuple[str, str | None]:
    """Split off ``:tag``; a colon before the last slash belongs to a port."""
    slash = rest.rfind("/")
    colon = rest.rfind(":")
    if colon <= slash:
        return rest, None
    tag = rest[colon + 1 :]
    if not _TAG.match(tag):
        raise _invalid(text, f"{tag[:140]!r} is not a tag", "a tag is 1 to 128 letters, digits, '_', '.', '-'")
    return rest[:colon], tag


def _split_domain(rest: str, default_domain: str) -> tuple[str, str]:
    """Docker's rule: the first component is a domain if it looks like no repository name."""
    first, slash, path = rest.partition("/")
    is_domain = bool(slash) and (any(c in first for c in ".:") or first == "localhost" or first != first.lower())
    if not is_domain:
        return default_domain, rest
    return (DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first), path


def _invalid(text: str, why: str, hint: str = "") -> InvalidReference:
    return InvalidReference(f"image name {text[:300]!r}: {why}", hint=hint)
