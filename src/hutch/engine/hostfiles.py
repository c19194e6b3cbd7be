"""The files the engine gives a container: /etc/hosts, /etc/hostname and /etc/resolv.conf, as text.

They are written into the container's own directory and mounted over the image's, so nothing is ever written through a
path of the image (CVE-2024-9341). Every value is checked for control characters before it goes into a line.
"""

from __future__ import annotations

import os

from hutch.engine.values import has_control
from hutch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.engine.options import RunOptions

_LIMIT = 1 << 20
_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def _line(*fields: str) -> str:
    for field in fields:
        if has_control(field):
            raise InvalidArgument(f"value {field[:64]!r} has control characters")
    return "\t".join(fields) + "\n"


def host_text(path: str) -> str:
    """A text file of the host's, at most 1 MiB; empty when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""


def hosts(options: RunOptions, hostname: str, *, host_file: str = "/etc/hosts") -> str:
    """The text of /etc/hosts: the host's own with --network host, else loopback, then --add-host."""
    text = host_text(host_file) if options.network == "host" else _LOCAL
    if text and not text.endswith("\n"):
        text += "\n"
    text += "".join(_line(address, name) for name, address in options.add_host)
    if hostname and options.network != "host":
        text += _line("127.0.1.1", f"{hostname}.{options.domainname} {hostname}" if options.domainname else hostname)
    return text


def hostname_file(hostname: str) -> str:
    """The text of /etc/hostname."""
    return _line(hostname)


def resolv_conf(options: RunOptions, *, host_file: str = "/etc/resolv.conf") -> str:
    """The text of /etc/resolv.conf: the host's, with what --dns, --dns-search and --dns-option replace in it.

    Without a network there is nobody to ask, so a container with --network none and no --dns gets no name server.
    """
    servers, search, settings = list(options.dns), list(options.dns_search), list(options.dns_option)
    for line in host_text(host_file).splitlines():
        words = line.split()
        if not words or has_control(line.replace("\t", " ")):
            continue
        if words[0] == "nameserver" and len(words) > 1 and not options.dns and options.network != "none":
            servers.append(words[1])
        elif words[0] in ("search", "domain") and not options.dns_search:
            search += words[1:]
        elif words[0] == "options" and not options.dns_option:
            settings += words[1:]
    for value in (*servers, *search, *settings):
        if has_control(value):
            raise InvalidArgument(f"DNS setting {value[:64]!r} has control characters")
    text = "".join(f"nameserver {server}\n" for server in servers)
    if search and search != ["."]:
        text += f"search {' '.join(search)}\n"
    if settings:
        text += f"options {' '.join(settings)}\n"
    return text


def write_files(folder: str, texts: dict[str, str], owner: tuple[int, int] | None) -> None:
    """Write each text into the container's directory, readable by all, owned by the container's root.

    Args:
        folder: 0700 and the engine's own.
        texts: file name → content.
        owner: host uid and gid of the container's root, or None to keep the caller's.
    """
    for name, text in texts.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{folder}/{name}", flags, 0o644)
        try:
            view = memoryview(text.encode("utf-8", "surrogateescape"))
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, 0o644)
            if owner:
                os.fchown(fd, *owner)
        finally:
            os.close(fd)
