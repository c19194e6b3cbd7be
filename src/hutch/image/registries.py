"""Configuration of registries: the default one, mirrors, insecure hosts, certificates.

In config.toml:

    [registries]
    default = "docker.io"
    insecure = ["registry.lan:5000"]        # may answer without TLS or with any certificate

    [registries.mirrors]
    "docker.io" = ["mirror.example.org"]    # asked first, in this order

    [registries.ca]
    "registry.example.org" = "/etc/ssl/example-ca.pem"

Certificates are also found where Docker keeps them: ``/etc/docker/certs.d/HOST[:PORT]/*.crt``
(authorities) and ``*.cert`` with ``*.key`` (a client's own).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hutch.errors import InvalidConfig
from hutch.image import hosts
from hutch.image.reference import DEFAULT_DOMAIN

_API_HOSTS = {DEFAULT_DOMAIN: "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_CERTIFICATE_DIRECTORIES = ("/etc/hutch/certs.d", "/etc/docker/certs.d")
_HOST = re.compile(r"\A(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?\Z")


@dataclass(frozen=True, slots=True)
class Registries:
    """How to reach registries; hosts are ``name[:port]`` in lower case.

    Attributes:
        default: registry of a name without one.
        insecure: hosts that may answer without TLS, or with a certificate nobody vouches for.
        mirrors: hosts to ask first, by the domain they stand in for.
        ca: PEM files of authorities to trust for a host, in addition to the system's.
        certificate_directories: where to look for ``HOST/*.crt``.
    """

    default: str = DEFAULT_DOMAIN
    insecure: frozenset[str] = frozenset()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ca: Mapping[str, str] = field(default_factory=dict)
    certificate_directories: tuple[str, ...] = _CERTIFICATE_DIRECTORIES

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Registries:
        """Read the ``[registries]`` table of a configuration file.

        Raises:
            InvalidConfig: an unknown key, or a value that is not what it should be.
        """
        unknown = set(table) - {"default", "insecure", "mirrors", "ca"}
        if unknown:
            raise InvalidConfig(f"registries: unknown key {min(unknown)!r}")
        mirrors, authorities = table.get("mirrors", {}), table.get("ca", {})
        if not isinstance(mirrors, dict) or not isinstance(authorities, dict):
            raise InvalidConfig("registries: mirrors and ca are tables by host")
        paths = {_host(host): str(path) for host, path in authorities.items()}
        for path in paths.values():
            if not os.path.isabs(path):
                raise InvalidConfig(f"registries: ca {path!r} is not an absolute path")
        return cls(
            default=_host(table.get("default", DEFAULT_DOMAIN)),
            insecure=frozenset(_hosts(table.get("insecure", []), "insecure")),
            mirrors={_host(host): tuple(_hosts(listed, "mirrors")) for host, listed in mirrors.items()},
            ca=paths,
        )

    def api_hosts(self, domain: str) -> list[str]:
        """The hosts to ask for images of `domain`: its mirrors, then itself."""
        return [*self.mirrors.get(domain, ()), _API_HOSTS.get(domain, domain)]

    def may_be_plain(self, host: str) -> bool:
        """Whether `host` may be spoken to without TLS: it is loopback literally, or configured so."""
        return self.is_insecure(host) or hosts.is_loopback(hosts.split_port(host)[0])

    def is_insecure(self, host: str) -> bool:
        """Whether the configuration calls `host` insecure; a name without a port means all its ports."""
        return host.lower() in self.insecure or hosts.split_port(host)[0] in self.insecure

    def certificates(self, host: str) -> tuple[list[str], list[tuple[str, str]]]:
        """PEM files of authorities for `host`, and pairs of a client certificate and its key."""
        authorities = [self.ca[host]] if host in self.ca else []
        clients: list[tuple[str, str]] = []
        for base in self.certificate_directories:
            directory = os.path.join(base, host)
            if not os.path.isdir(directory):
                continue
            for name in sorted(os.listdir(directory)):
                path = os.path.join(directory, name)
                if name.endswith(".crt"):
                    authorities.append(path)
                elif name.endswith(".cert"):
                    clients.append((path, f"{path.removesuffix('.cert')}.key"))
        return authorities, clients


def _host(value: object) -> str:
    text = str(value).removeprefix("https://").removesuffix("/")
    if not _HOST.match(text):
        raise InvalidConfig(f"registries: {str(value)[:300]!r} is not a host[:port]")
    return text.lower()


def _hosts(values: object, key: str) -> list[str]:
    if not isinstance(values, list):
        raise InvalidConfig(f"registries: {key} is not a list")
    return [_host(value) for value in values]
