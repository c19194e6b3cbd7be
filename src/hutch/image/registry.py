"""The pull half of the OCI distribution specification, for one repository of one registry.

Everything that arrives is checked here: manifests against the digest asked for, blobs while they
stream into the store. What to ask for, and in which order, is decided in hutch.image.pull.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from hutch.errors import (
    BlobNotFound,
    DigestMismatch,
    HutchError,
    ImageNotFound,
    InvalidArgument,
    PermissionDenied,
    RegistryUnavailable,
    Unauthorized,
    Unavailable,
)
from hutch.image import digest as digests
from hutch.image import strictjson
from hutch.image.auth import Authorizer, parse_challenges
from hutch.image.connections import MAX_ERROR_BYTES, error_message
from hutch.image.content import Ingest
from hutch.image.credentials import Credentials, CredentialStore
from hutch.image.manifest import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES, SCHEMA1_TYPES, Descriptor
from hutch.image.reference import DEFAULT_DOMAIN
from hutch.image.response import Lost, Response
from hutch.image.transport import Transport

_ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
_KNOWN_TYPES = frozenset((*MANIFEST_TYPES, *INDEX_TYPES, *SCHEMA1_TYPES))
_MAX_TAGS = 100_000
_MAX_TAG_PAGES = 1000
_MAX_TAG_PAGE_BYTES = 4 << 20
_MAX_RESUMES = 30
_NEXT = re.compile(r'\A\s*<([^<>]{1,4096})>\s*;\s*rel="?next"?')
_RANGE = re.compile(r"\Abytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)\Z")
_OK_OR_PART = frozenset({200, 206, 416})


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or index as the registry sent it; its digest is the digest of `data`."""

    data: bytes
    digest: str
    media_type: str | None


class Repository:
    """One repository at one host.

    Args:
        host: ``name[:port]`` to ask: the registry's, or a mirror's.
        path: of the repository (``library/alpine``), already in the grammar.
        transport: shared by all repositories.
        credentials: for `host`, or None.
    """

    def __init__(self, host: str, path: str, transport: Transport, credentials: Credentials | None) -> None:
        self.host = host
        self.path = path
        self._transport = transport
        try:
            self._origin = transport.origin(host)
        except Lost as error:
            raise RegistryUnavailable(str(error)) from None
        self._authorizer = Authorizer(self._origin, credentials, transport)
        self._scope = f"repository:{path}:pull"

    def manifest(self, reference: str) -> Fetched:
        """Fetch a manifest or index by tag or digest.

        Raises:
            ImageNotFound: the registry has none.
            DigestMismatch: it is not what was asked for, or not what the registry says it is.
            Unauthorized, PermissionDenied, RegistryUnavailable: see `hutch.errors`.
        """
        what = f"manifest {self.host}/{self.path}:{reference}".replace(":sha", "@sha")
        for attempt in range(1, self._transport.patience.attempts + 1):
            try:
                with self._get(f"manifests/{reference}", {"Accept": _ACCEPT}) as response:
                    if response.status == 404:
                        raise ImageNotFound(f"{what}: not found")
                    self._refuse_other(response, what)
                    data = response.read(MAX_MANIFEST_BYTES, what)
                break
            except Lost as error:
                if attempt == self._transport.patience.attempts:
                    raise RegistryUnavailable(str(error)) from None
                self._transport.pause(self._transport.backoff(attempt))
        wanted = reference if digests.is_digest(reference) else None
        stated = response.headers.get("Docker-Content-Digest")
        for promised in filter(None, (wanted, stated)):
            got = digests.of(data, digests.split(promised)[0])
            if got != promised:
                raise DigestMismatch(what, wanted=promised, got=got)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Fetched(data, wanted or digests.of(data), media_type if media_type in _KNOWN_TYPES else None)

    def document(self, blob: Descriptor, limit: int) -> bytes:
        """Fetch a small blob whole, such as a configuration.

        Raises:
            BlobNotFound, DigestMismatch, and as `manifest`.
        """
        if blob.size > limit:
            raise InvalidArgument(f"blob {blob.digest}: larger than {limit} bytes")
        for attempt in range(1, self._transport.patience.attempts + 1):
            try:
                with self._get(f"blobs/{blob.digest}", {}) as response:
                    self._refuse_blob(response, blob)
                    data = response.read(limit, f"blob {blob.digest}")
                break
            except Lost as error:
                if attempt == self._transport.patience.attempts:
                    raise RegistryUnavailable(str(error)) from None
                self._transport.pause(self._transport.backoff(attempt))
        got = digests.of(data, digests.split(blob.digest)[0])
        if got != blob.digest or len(data) != blob.size:
            raise DigestMismatch(
                f"blob {blob.digest}", wanted=f"{blob.digest} ({blob.size} bytes)", got=f"{got} ({len(data)} bytes)"
            )
        return data

    def blob(self, blob: Descriptor, ingest: Ingest, progress: Callable[[int], None]) -> None:
        """Stream one blob into `ingest` from where that stands, and commit it.

        A broken connection is taken up again where it broke, as long as there is progress.

        Args:
            blob: what the manifest promised.
            ingest: opened for it; begun by an earlier process perhaps.
            progress: called with the bytes there are, after each piece.

        Raises:
            BlobNotFound: the registry has none.
            DigestMismatch: content or size differ; nothing is kept.
            Unauthorized, PermissionDenied, RegistryUnavailable: what arrived is kept for next time.
        """
        inherited = ingest.offset > 0
        failures = resumes = 0
        while ingest.offset < blob.size or blob.size == 0:
            before = ingest.offset
            try:
                self._stream(blob, ingest, progress)
                break
            except Lost as error:
                resumes += 1
                failures = 0 if ingest.offset > before else failures + 1
                if failures >= self._transport.patience.attempts or resumes >= _MAX_RESUMES:
                    raise RegistryUnavailable(f"blob {blob.digest}: {error}") from None
                self._transport.pause(self._transport.backoff(failures + 1))
        try:
            ingest.commit()
        except DigestMismatch:
            if not inherited:
                raise
            raise DamagedPartial(blob.digest) from None

    def tags(self) -> Iterator[str]:
        """The tags of the repository, page after page.

        Raises:
            ImageNotFound: no such repository.
            Unavailable: the pages lead elsewhere, or do not end.
        """
        path, seen = "tags/list", 0
        for _ in range(_MAX_TAG_PAGES):
            with self._get(path, {"Accept": "application/json"}) as response:
                if response.status == 404:
                    raise ImageNotFound(f"repository {self.host}/{self.path}: not found")
                self._refuse_other(response, f"repository {self.host}/{self.path}")
                data = response.read(_MAX_TAG_PAGE_BYTES, "list of tags")
            document = strictjson.loads(data, "list of tags", limit=_MAX_TAG_PAGE_BYTES)
            tags = (document.get("tags") if isinstance(document, dict) else None) or []
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise Unavailable(f"repository {self.host}/{self.path}: its list of tags is no list")
            seen += len(tags)
            if seen > _MAX_TAGS:
                break
            yield from tags
            following = _NEXT.match(response.headers.get("Link", ""))
            if following is None:
                return
            path = self._next_page(following.group(1))
        raise Unavailable(f"repository {self.host}/{self.path}: its list of tags does not end")

    # -- requests ----------------------------------------------------------------------------

    def _url(self, path: str) -> str:
        return f"{self._origin}/v2/{quote(self.path)}/{path}"

    def _next_page(self, link: str) -> str:
        base = self._url("")
        url = urljoin(self._url("tags/list"), link)
        if not url.startswith(f"{base}tags/list?"):
            raise Unavailable(f"repository {self.host}/{self.path}: its list of tags goes on elsewhere: refused")
        return f"tags/list?{urlsplit(url).query}"

    @contextmanager
    def _get(self, path: str, headers: dict[str, str]) -> Iterator[Response]:
        """GET below this repository; a 401 is answered, once, and a second time with a new token."""
        authorization = self._authorizer.header(self._scope)
        for attempt in range(3):
            with self._transport.request(
                "GET", self._url(path), headers=headers, authorization=authorization, accept_status=_OK_OR_PART
            ) as response:
                if response.status != 401:
                    yield response
                    return
                challenge = response.headers.get("WWW-Authenticate", "")
                why = error_message(response.read(MAX_ERROR_BYTES, "error"))
            if attempt == 2 or (authorization is None and attempt):
                break
            authorization = self._authorizer.answer(challenge, self._scope, rejected=authorization)
        raise Unauthorized(
            f"repository {self.host}/{self.path}: access denied{f' ({why})' if why else ''}",
            hint=f"it may not exist, or need 'hutch login {self.host}'",
        )

    def _refuse_other(self, response: Response, what: str) -> None:
        if response.status == 200:
            return
        why = error_message(response.read(MAX_ERROR_BYTES, "error")) or f"status {response.status}"
        if response.status == 403:
            raise PermissionDenied(f"{what}: {why}")
        raise Unavailable(f"{what}: {why}")

    def _refuse_blob(self, response: Response, blob: Descriptor) -> None:
        if response.status == 404:
            raise BlobNotFound(f"blob {blob.digest}: not in registry {self.host}")
        self._refuse_other(response, f"blob {blob.digest}")
        if response.length is not None and response.length != blob.size:
            raise DigestMismatch(f"blob {blob.digest}", wanted=f"{blob.size} bytes", got=f"{response.length} bytes")

    def _stream(self, blob: Descriptor, ingest: Ingest, progress: Callable[[int], None]) -> None:
        headers = {"Range": f"bytes={ingest.offset}-{blob.size - 1}"} if ingest.offset else {}
        with self._get(f"blobs/{blob.digest}", headers) as response:
            if response.status == 206 and ingest.offset:
                part = _RANGE.match(response.headers.get("Content-Range", ""))
                if part is None or int(part.group(1)) != ingest.offset:
                    ingest.restart()
                    raise Lost(f"registry {self.host}: sends another part than was asked for")
            elif response.status == 416:
                ingest.restart()
                raise Lost(f"registry {self.host}: cannot send the rest")
            else:
                self._refuse_blob(response, blob)
                if ingest.offset:
                    ingest.restart()
            for chunk in response.chunks():
                ingest.write(chunk)
                progress(ingest.offset)
            whole = response.status == 200 and "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if ingest.offset < blob.size and whole:  # it said that this was the end
            got = ingest.offset
            ingest.discard()
            raise DigestMismatch(f"blob {blob.digest}", wanted=f"{blob.size} bytes", got=f"{got} bytes")
        if ingest.offset < blob.size:
            raise Lost(f"registry {self.host}: the body ended early")


class DamagedPartial(HutchError):
    """What an earlier process left was not a prefix of the blob; it is gone, so trying again helps."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"blob {digest}: what an earlier download left is damaged")


def login(host: str, credentials: Credentials, *, transport: Transport, store: CredentialStore) -> str:
    """Try credentials at a registry and keep them if they are right; says where they are kept.

    Args:
        host: ``name[:port]``, or ``docker.io``.
        credentials: name and password.
        transport: to reach it.
        store: the user's config.json.

    Raises:
        Unauthorized: wrong name or password.
    """
    origin = transport.origin(transport.registries.api_hosts(host)[-1])
    authorizer = Authorizer(origin, credentials, transport)
    url = f"{origin}/v2/"
    with transport.request("GET", url) as response:
        status, challenge = response.status, response.headers.get("WWW-Authenticate", "")
    kept = credentials
    if status == 401:
        answer = authorizer.answer(challenge, "", rejected=None)
        with transport.request("GET", url, authorization=answer) as response:
            status = response.status
        if status == 401:
            raise Unauthorized(f"registry {host}: wrong user name or password")
        if any(each.scheme == "bearer" for each in parse_challenges(challenge)):
            identity = authorizer.identity_token(challenge)
            kept = Credentials(credentials.username, identity_token=identity) if identity else credentials
    if status not in {200, 404}:
        raise Unavailable(f"registry {host}: status {status} for /v2/")
    return store.put(host, kept)


def logout(host: str, *, store: CredentialStore) -> bool:
    """Forget the credentials for a registry; False if there were none."""
    return store.remove(host or DEFAULT_DOMAIN)
