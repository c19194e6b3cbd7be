"""Real registries (Debian's docker-registry) on loopback: open, with passwords, with a token server, with TLS."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.programs import accepts, daemon, free_port, run
from tests.support.tokenserver import TokenServer

USERNAME, PASSWORD = "tester", "correct horse"


@dataclasses.dataclass(frozen=True)
class Registry:
    """One running registry.

    Attributes:
        host: "127.0.0.1:PORT", the domain of references.
        storage: the directory it keeps blobs in (`docker/registry/v2/blobs/sha256/…`), for tests that damage them.
        username: what it wants, empty where it is open.
        password: see username.
        ca: path of the certificate of the authority that signed its own, empty for plain HTTP.
        tokens: its token server, if it has one; `tokens.requests` is what was asked of it.
    """

    host: str
    storage: str
    username: str = ""
    password: str = ""
    ca: str = ""
    tokens: TokenServer | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    def reference(self, name: str) -> str:
        """`name` ("repository:tag") in this registry."""
        return f"{self.host}/{name}"

    def skopeo_credentials(self, side: str) -> list[str]:
        """skopeo's options to reach this registry; side is "src" or "dest"."""
        options = [f"--{side}-tls-verify=false"]
        return [*options, f"--{side}-creds={self.username}:{self.password}"] if self.username else options

    def docker_config(self, directory: str) -> str:
        """Write a docker config.json with this registry's credentials into `directory`; returns its path."""
        auth = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        path = f"{directory}/config.json"
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"auths": {self.host: {"auth": auth}}} if self.username else {}, file)
        return path

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One raw HTTP request with our credentials (basic only); (status, headers, body)."""
        url = path if "://" in path else f"{self.url}{path}"
        request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
        if self.username:
            credentials = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        if context:
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # openssl's short way to an authority lacks an extension
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def push_blob(self, repository: str, data: bytes, digest: str) -> None:
        """Upload a blob in one piece; the registry verifies the digest."""
        status, headers, body = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
        assert status == 202, body
        location = headers["Location"]
        joint = "&" if "?" in location else "?"
        kind = {"Content-Type": "application/octet-stream"}
        status, _, body = self.request("PUT", f"{location}{joint}digest={digest}", data, kind)
        assert status == 201, body

    def push_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Put a manifest as it is; returns the digest the registry gave it."""
        path = f"/v2/{repository}/manifests/{reference}"
        status, headers, body = self.request("PUT", path, data, {"Content-Type": media_type})
        assert status == 201, body
        return headers["Docker-Content-Digest"]

    def blob_path(self, digest: str) -> str:
        """The file the registry serves a blob or manifest from."""
        algorithm, _, value = digest.partition(":")
        return f"{self.storage}/docker/registry/v2/blobs/{algorithm}/{value[:2]}/{value}/data"


@contextlib.contextmanager
def plain(directory: str) -> Iterator[Registry]:
    """A registry for everybody, over plain HTTP."""
    with _serve(directory, {}, {}) as host:
        yield Registry(host, f"{directory}/storage")


@contextlib.contextmanager
def with_passwords(directory: str) -> Iterator[Registry]:
    """A registry that wants basic authentication for everything."""
    hashed = run(["htpasswd", "-nbB", "-C", "4", USERNAME, PASSWORD]).stdout.strip()
    path = f"{directory}/htpasswd"
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{hashed}\n")
    with _serve(directory, {"htpasswd": {"realm": "hutch tests", "path": path}}, {}) as host:
        yield Registry(host, f"{directory}/storage", USERNAME, PASSWORD)


@contextlib.contextmanager
def with_tokens(directory: str) -> Iterator[Registry]:
    """A registry that wants bearer tokens: anybody may pull `public/…`, the user may do everything."""
    key, certificate = make_certificate(directory, "token issuer")
    with TokenServer(key, certificate, {USERNAME: PASSWORD}) as tokens:
        token = {
            "realm": f"{tokens.url}/token",
            "service": tokens.service,
            "issuer": tokens.issuer,
            "rootcertbundle": certificate,
        }
        with _serve(directory, {"token": token}, {}) as host:
            yield Registry(host, f"{directory}/storage", USERNAME, PASSWORD, tokens=tokens)


@contextlib.contextmanager
def with_tls(directory: str) -> Iterator[Registry]:
    """A registry over HTTPS whose certificate (localhost, 127.0.0.1) an authority of ours signed."""
    ca_key, ca = make_certificate(directory, "hutch tests authority")
    key, certificate = make_certificate(directory, "localhost", signer=(ca_key, ca))
    with _serve(directory, {}, {"certificate": certificate, "key": key}) as host:
        yield Registry(host, f"{directory}/storage", ca=ca)


@contextlib.contextmanager
def _serve(directory: str, auth: dict[str, Any], tls: dict[str, str]) -> Iterator[str]:
    port = free_port()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}", "secret": "hutch tests"}
    if tls:
        http["tls"] = tls
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{directory}/storage"}, "delete": {"enabled": True}},
        "http": http,
    }
    if auth:
        config["auth"] = auth
    path = f"{directory}/config.yml"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)  # JSON is YAML
    env = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    with daemon(["docker-registry", "serve", path], log=f"{directory}/log", ready=lambda: accepts(port), env=env):
        yield f"127.0.0.1:{port}"


def make_certificate(directory: str, name: str, signer: tuple[str, str] | None = None) -> tuple[str, str]:
    """Make an RSA key and a certificate with openssl.

    Args:
        directory: where to write NAME.key and NAME.crt.
        name: common name.
        signer: (key, certificate) of the authority; without one the certificate signs itself and is an authority.

    Returns:
        The paths of key and certificate.
    """
    base = f"{directory}/{name.replace(' ', '-')}"
    key, certificate, extensions = f"{base}.key", f"{base}.crt", f"{base}.ext"
    run(["openssl", "genrsa", "-out", key, "2048"])
    subject = ["-subj", f"/CN={name}"]
    if signer is None:
        run(["openssl", "req", "-x509", "-new", "-key", key, "-days", "2", *subject, "-out", certificate])
        return key, certificate
    with open(extensions, "w", encoding="ascii") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    run(["openssl", "req", "-new", "-key", key, *subject, "-out", f"{base}.csr"])
    authority = ["-CAkey", signer[0], "-CA", signer[1], "-CAcreateserial"]
    given = ["-in", f"{base}.csr", "-days", "2", "-extfile", extensions]
    run(["openssl", "x509", "-req", *given, *authority, "-out", certificate])
    return key, certificate
