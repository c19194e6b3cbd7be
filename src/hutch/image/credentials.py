"""Credentials for registries: Docker's config.json and the credential helpers it names.

They are read when a registry asks for them, handed over for one host, and shown nowhere: no
message, log or repr has them (CVE-2019-13509).

https://docs.docker.com/reference/cli/docker/login/ has the file, docker-credential-helpers the protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Any

from hutch.errors import HutchError, InvalidConfig, NotFound
from hutch.image import strictjson
from hutch.image.connections import printable
from hutch.image.content import write_file
from hutch.image.reference import DEFAULT_DOMAIN

HUB_KEY = "https://index.docker.io/v1/"  # what Docker calls its own registry
_MAX_CONFIG_BYTES = 4 << 20
_MAX_HELPER_BYTES = 1 << 20
_HELPER_TIMEOUT_S = 120.0  # it may ask the user for a passphrase
_HELPER_NAME = re.compile(r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}\Z")
_NOT_FOUND = "credentials not found"
_TOKEN_USER = "<token>"  # noqa: S105 - the name that says: the secret is an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and password, or an identity token in their place.

    Attributes:
        username: empty with an identity token.
        password: see username.
        identity_token: exchanged for access tokens at the token server.
        registry_token: an access token itself, sent as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of an Authorization header for basic authentication."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class CredentialStore:
    """One user's config.json.

    Args:
        path: of the file; by default ``$DOCKER_CONFIG/config.json``, else ``$HOME/.docker/config.json``.
        search_path: where credential helpers are looked for, as in ``PATH``; relative entries are skipped.
    """

    def __init__(self, path: str | None = None, *, search_path: str | None = None) -> None:
        self.path = path or default_path()
        self._search_path = os.environ.get("PATH", os.defpath) if search_path is None else search_path

    def get(self, host: str) -> Credentials | None:
        """Return the credentials for a registry, or None.

        Args:
            host: ``name[:port]`` as in references; ``docker.io`` for Docker Hub.

        Raises:
            InvalidConfig: the file is damaged.
            HutchError: a credential helper failed.
        """
        document = self._read()
        helper = _helper_for(document, host)
        if helper:
            return self._helper_get(helper, host)
        auths = document.get("auths", {})
        for key in _keys(host):
            entry = auths.get(key)
            if isinstance(entry, dict) and (found := _decode(entry, self.path)):
                return found
        return None

    def put(self, host: str, credentials: Credentials) -> str:
        """Keep credentials for a registry, in a helper if the file names one, and say where they are kept."""
        document = self._read()
        helper = _helper_for(document, host)
        key = _keys(host)[0]
        if helper:
            user, secret = credentials.username, credentials.password
            if credentials.identity_token:
                user, secret = _TOKEN_USER, credentials.identity_token
            request = {"ServerURL": key, "Username": user, "Secret": secret}
            self._run(helper, "store", json.dumps(request).encode())
            return f"credential helper {helper}"
        entry = {"auth": base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()}
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        document.setdefault("auths", {})[key] = entry
        self._write(document)
        return self.path

    def remove(self, host: str) -> bool:
        """Forget the credentials for a registry; False if there were none."""
        document = self._read()
        helper = _helper_for(document, host)
        known = False
        if helper and self._helper_get(helper, host) is not None:
            self._run(helper, "erase", _keys(host)[0].encode())
            known = True
        auths = document.get("auths", {})
        present = [key for key in _keys(host) if key in auths]
        for key in present:
            del auths[key]
        if present:
            self._write(document)
        return known or bool(present)

    # -- the file ----------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        try:
            file_fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        with open(file_fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(file_fd).st_mode):
                raise InvalidConfig(f"{self.path}: not a regular file")
            data = stream.read(_MAX_CONFIG_BYTES + 1)
        if not data.strip():
            return {}
        document = strictjson.loads(data, self.path, limit=_MAX_CONFIG_BYTES)
        if not isinstance(document, dict) or not isinstance(document.get("auths", {}), dict):
            raise InvalidConfig(f"{self.path}: not an object with an object 'auths'")
        return document

    def _write(self, document: dict[str, Any]) -> None:
        # The file may be a symbolic link into a repository of dotfiles: keep that, replace what it points to.
        target = os.path.join(os.path.dirname(self.path), os.readlink(self.path)) if os.path.islink(self.path) else ""
        path = target or self.path
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_file(path, json.dumps(document, indent="\t").encode(), mode=0o600)

    # -- helpers -----------------------------------------------------------------------------

    def _helper_get(self, helper: str, host: str) -> Credentials | None:
        for key in _keys(host):
            try:
                answer = self._run(helper, "get", key.encode())
            except NotFound:
                continue
            document = strictjson.loads(answer, f"credential helper {helper}", limit=_MAX_HELPER_BYTES)
            fields = document if isinstance(document, dict) else {}
            user, secret = fields.get("Username"), fields.get("Secret")
            if not isinstance(user, str) or not isinstance(secret, str):
                raise InvalidConfig(f"credential helper {helper}: answers without Username and Secret")
            if user == _TOKEN_USER:
                return Credentials(identity_token=secret)
            return Credentials(user, secret) if user or secret else None
        return None

    def _run(self, helper: str, verb: str, request: bytes) -> bytes:
        """Run one helper command: the request on its stdin, never in its arguments."""
        program = self._find(helper)
        process = subprocess.Popen(
            [program, verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            cwd="/",
        )
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(_HELPER_TIMEOUT_S, process.kill)
        timer.start()
        try:
            try:
                process.stdin.write(request)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it may answer without listening
            answer = process.stdout.read(_MAX_HELPER_BYTES + 1)
            if len(answer) > _MAX_HELPER_BYTES:
                raise HutchError(f"credential helper {helper}: answers more than {_MAX_HELPER_BYTES} bytes")
            process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        if process.returncode == 0:
            return answer
        said = printable(answer.decode("utf-8", "replace").strip())
        if _NOT_FOUND in said:
            raise NotFound(f"credential helper {helper}: {said}")
        reason = said if verb != "get" and said else f"{verb} failed with status {process.returncode}"
        raise HutchError(f"credential helper {helper}: {reason}")

    def _find(self, helper: str) -> str:
        if not _HELPER_NAME.match(helper):
            raise InvalidConfig(f"{self.path}: {helper[:64]!r} is not the name of a credential helper")
        for directory in self._search_path.split(os.pathsep):
            path = os.path.join(directory, f"docker-credential-{helper}")
            if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise InvalidConfig(
            f"credential helper docker-credential-{helper}: executable file not found in $PATH",
            hint=f"{self.path} names it in credsStore or credHelpers",
        )


def default_path() -> str:
    """Where Docker's client keeps its configuration."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.environ.get("HOME") or "/root", ".docker")
    return os.path.join(os.path.abspath(directory), "config.json")


def _keys(host: str) -> list[str]:
    """The names a registry may have in the file, the one to write first."""
    if host == DEFAULT_DOMAIN:
        return [HUB_KEY, "index.docker.io", "docker.io", "https://index.docker.io", "registry-1.docker.io"]
    return [host, f"https://{host}", f"https://{host}/", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]


def _helper_for(document: dict[str, Any], host: str) -> str:
    helpers = document.get("credHelpers", {})
    for key in _keys(host):
        if isinstance(helpers, dict) and isinstance(helpers.get(key), str):
            return str(helpers[key])
    store = document.get("credsStore")
    return store if isinstance(store, str) else ""


def _decode(entry: dict[str, Any], path: str) -> Credentials | None:
    identity, access = entry.get("identitytoken", ""), entry.get("registrytoken", "")
    user, password = entry.get("username", ""), entry.get("password", "")
    encoded = entry.get("auth", "")
    if not all(isinstance(value, str) for value in (identity, access, user, password, encoded)):
        raise InvalidConfig(f"{path}: an entry of auths holds something else than strings")
    if encoded:
        try:
            decoded = base64.b64decode(encoded, validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidConfig(f"{path}: an auth is not base64") from None
        user, colon, password = decoded.partition(":")
        if not colon:
            raise InvalidConfig(f"{path}: an auth has no colon")
    if identity:
        return Credentials(identity_token=identity)
    if access:
        return Credentials(registry_token=access)
    return Credentials(user, password) if user or password else None
