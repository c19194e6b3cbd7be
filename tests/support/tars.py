"""What a tar archive holds, for comparing archives of different makers."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

Listing = dict[str, tuple[Any, ...]]


def listing(archive: bytes, *, owners: bool = True) -> Listing:
    """Name → type, mode, owner, link target, content, and which names are links of one file; without times.

    The first of several hard links is whichever comes first, so they are compared as a set of names.
    """
    found: Listing = {}
    links: dict[str, set[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        for member in tar:
            name = member.name.removeprefix("./").strip("/")
            name = "" if name == "." else name
            ids = (member.uid, member.gid) if owners else ()
            content = b""
            if member.islnk():
                target = member.linkname.removeprefix("./").strip("/")
                links.setdefault(target, {target}).add(name)
                found[name] = found[target]
                continue
            if member.isreg():
                stream = tar.extractfile(member)
                content = stream.read() if stream else b""
            kind = member.type.decode()
            mode = member.mode & 0o7777 if not member.issym() else 0o777
            linkname = member.linkname if member.issym() else ""
            found[name] = (kind, mode, *ids, linkname, hashlib.sha256(content).hexdigest() if member.isreg() else "")
    for names in links.values():
        for name in names:
            found[name] = (*found[name], *sorted(names))
    return found
