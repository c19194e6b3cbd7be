"""Pull: from a name in a registry to an image in the store, its layers unpacked.

    resolve the name → manifest → configuration → layers, several at a time
                                                   └ each unpacked, base first, while the next ones arrive

Everything a pull needs is leased before it is looked for, so no garbage collection comes between.
The image is entered in index.json at the very end. A pull that dies before, or whose registry goes
away, leaves blobs and partial blobs, which the next one goes on from and `prune` removes; one that
fails for good leaves nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from hutch.errors import BlobNotFound, HutchError, ImageNotFound, Internal, InvalidArgument, Unavailable
from hutch.image import digest as digests
from hutch.image import platform as platforms
from hutch.image import progress as phases
from hutch.image.content import ContentStore
from hutch.image.credentials import CredentialStore
from hutch.image.diffid import verify_diff_id
from hutch.image.image import Image
from hutch.image.manifest import MAX_CONFIG_BYTES, Descriptor, ImageConfig, check_layers, parse_config
from hutch.image.platform import Platform
from hutch.image.progress import Progress
from hutch.image.reference import Reference
from hutch.image.registries import Registries
from hutch.image.registry import DamagedPartial, Repository
from hutch.image.resolve import Resolved, resolve
from hutch.image.response import Cancelled
from hutch.image.store import ImageStore
from hutch.image.transport import Transport
from hutch.image.unpack import unpack_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hutch.snapshot.snapshotter import Snapshotter

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_POLL_S = 0.05


def pull(
    reference: Reference,
    *,
    store: ImageStore,
    layers: Snapshotter,
    registries: Registries | None = None,
    platform: Platform | None = None,
    credentials: CredentialStore | None = None,
    progress: Progress | None = None,
    transport: Transport | None = None,
    downloads: int = 3,
) -> Image:
    """Pull one image.

    Args:
        reference: without tag and digest it means ``:latest``.
        store: gets blobs and names.
        layers: gets the unpacked layers.
        registries: mirrors, insecure hosts, certificates.
        platform: which one of several; None is this host's, and then a single image of another
            platform is only warned about.
        credentials: of the user; None reads Docker's config.json.
        progress: is told what happens.
        transport: to share between pulls; None makes one and closes it.
        downloads: blobs at a time.

    Raises:
        ImageNotFound: no such image, or none for the platform.
        Unauthorized, PermissionDenied, RegistryUnavailable, DigestMismatch, InvalidConfig,
        NotSupported: see `hutch.errors`. No image is entered then.
    """
    registries = registries or Registries()
    with _transport(transport, registries) as shared:
        job = _Pull(
            reference=reference.with_default_tag(),
            store=store,
            layers=layers,
            transport=shared,
            credentials=credentials or CredentialStore(),
            progress=progress or Progress(),
            platform=platform,
            downloads=downloads,
        )
        try:
            return job.run()
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise Unavailable(
                f"pull {reference.familiar()}: {os.strerror(error.errno or 0).lower()}",
                hint="free some space ('hutch image prune'), then pull again",
            ) from None


def pull_all_tags(
    reference: Reference,
    *,
    store: ImageStore,
    layers: Snapshotter,
    registries: Registries | None = None,
    platform: Platform | None = None,
    credentials: CredentialStore | None = None,
    progress: Progress | None = None,
) -> list[Image]:
    """Pull every tag of a repository; `reference` has neither tag nor digest. See `pull`."""
    if reference.tag or reference.digest:
        raise InvalidArgument(f"image name {reference.familiar()}: a tag cannot be used with all tags")
    registries = registries or Registries()
    credentials = credentials or CredentialStore()
    with _transport(None, registries) as transport:
        host = registries.api_hosts(reference.domain)[-1]
        repository = Repository(host, reference.path, transport, credentials.get(reference.domain))
        return [
            pull(
                reference.with_tag(tag),
                store=store,
                layers=layers,
                registries=registries,
                platform=platform,
                credentials=credentials,
                progress=progress,
                transport=transport,
            )
            for tag in repository.tags()
        ]


@dataclass(slots=True)
class _Pull:
    """The state of one pull."""

    reference: Reference
    store: ImageStore
    layers: Snapshotter
    transport: Transport
    credentials: CredentialStore
    progress: Progress
    platform: Platform | None
    downloads: int
    repositories: list[Repository] = field(default_factory=list)

    @property
    def content(self) -> ContentStore:
        return self.store.content

    def run(self) -> Image:
        resolved = self._resolve()
        self.progress.resolved(self.reference, resolved.served.digest)
        manifest = resolved.manifest
        with self.store.bringing() as lease:
            blobs = [resolved.served.digest, resolved.descriptor.digest, manifest.config.digest]
            lease.add([*blobs, *(layer.digest for layer in manifest.layers)])
            config = self._config(manifest.config)
            check_layers(manifest, config)
            self._check_platform(resolved, config)
            chain_ids = digests.chain_ids(config.rootfs.diff_ids)
            lease.add(chain_ids)
            before = self._present()
            self._layers(manifest.layers, config, chain_ids)
            self.content.add(resolved.data, resolved.descriptor.digest)
            self.content.add(resolved.served.data, resolved.served.digest)
            source = resolved.served.digest if resolved.from_index else None
            image = self.store.add(
                self._names(resolved.served.digest), resolved.descriptor, source=source, action="pull"
            )
        updated = before != resolved.descriptor.digest
        self.progress.finished(self.reference, resolved.served.digest, updated=updated)
        return image

    def _names(self, served: str) -> list[Reference]:
        if self.reference.digest:
            return [self.reference.with_digest(self.reference.digest)]
        return [self.reference, self.reference.with_digest(served)]

    def _present(self) -> str | None:
        """The digest of the manifest that has this name now."""
        try:
            return self.store.get(str(self.reference)).descriptor.digest
        except HutchError:
            return None  # none, or a damaged one that this pull replaces

    # -- manifest and configuration ----------------------------------------------------------

    def _resolve(self) -> Resolved:
        """Ask the mirrors, then the registry; whoever has the image serves its blobs too."""
        wanted = (self.platform or platforms.host()).normalised()
        name = self.reference.digest or self.reference.tag or ""
        api_hosts = self.transport.registries.api_hosts(self.reference.domain)
        for host in api_hosts:
            is_mirror = host != api_hosts[-1]
            try:
                known_as = host if is_mirror else self.reference.domain
                repository = Repository(host, self.reference.path, self.transport, self.credentials.get(known_as))
                self.repositories.append(repository)
                return resolve(repository, name, wanted)
            except Cancelled:
                raise
            except HutchError as error:
                if not is_mirror:
                    raise
                if self.repositories and self.repositories[-1].host == host:
                    self.repositories.pop()
                if not isinstance(error, ImageNotFound):
                    self.progress.warning(f"mirror {host}: {error}")
        raise AssertionError("a domain has at least its own host")

    def _config(self, descriptor: Descriptor) -> ImageConfig:
        if self.content.has(descriptor.digest):
            return parse_config(self.content.read(descriptor.digest, MAX_CONFIG_BYTES))
        data = self.repositories[-1].document(descriptor, MAX_CONFIG_BYTES)
        config = parse_config(data)
        self.content.add(data, descriptor.digest)
        return config

    def _check_platform(self, resolved: Resolved, config: ImageConfig) -> None:
        wanted = self.platform or platforms.host()
        if resolved.from_index or platforms.preference(wanted, config.platform) is not None:
            return
        text = f"image {self.reference.familiar()}: its platform is {config.platform}, not {wanted.normalised()}"
        if self.platform is not None:
            raise ImageNotFound(text)
        self.progress.warning(text)

    # -- layers ------------------------------------------------------------------------------

    def _layers(self, blobs: Sequence[Descriptor], config: ImageConfig, chain_ids: Sequence[str]) -> None:
        """Download all layers, several at a time, and unpack each as soon as those below it are."""
        self._check_space(blobs)
        executor = ThreadPoolExecutor(self.downloads, thread_name_prefix="download")
        futures: list[Future[None]] = []
        try:
            futures.extend(executor.submit(self._download, blob) for blob in blobs)
            for position, future in enumerate(futures):
                future.result()
                self._unpack(blobs[position], config.rootfs.diff_ids[position], chain_ids, position)
        except BaseException as error:
            self.transport.cancel()
            executor.shutdown(wait=True, cancel_futures=True)
            raise _cause(error, futures) from None
        executor.shutdown()

    def _check_space(self, blobs: Sequence[Descriptor]) -> None:
        """Fail before the download that cannot fit, not in the middle of it."""
        missing = {blob.digest: blob.size for blob in blobs if not self.content.has(blob.digest)}
        here = sum(missing.values()) - sum(self.content.partial_size(digest) for digest in missing)
        free = os.statvfs(self.content.root)
        if here > free.f_bavail * free.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _download(self, blob: Descriptor) -> None:
        """Bring one blob into the store; the first failure of any ends all."""
        try:
            for _ in range(2):
                try:
                    self._download_once(blob)
                    return
                except DamagedPartial:
                    continue  # it is gone; from the beginning this time
            self._download_once(blob)
        except BaseException:
            self.transport.cancel()
            raise

    def _download_once(self, blob: Descriptor) -> None:
        def wait() -> None:
            self.progress.layer(blob.digest, phases.WAITING, 0, blob.size)
            self.transport.pause(_POLL_S)

        def report(done: int) -> None:
            self.progress.layer(blob.digest, phases.DOWNLOADING, done, blob.size)

        with self.content.ingest(blob.digest, blob.size, wait=wait) as ingest:
            if ingest.present:
                if self.content.size(blob.digest) != blob.size:
                    raise Internal(
                        f"blob {blob.digest}: {self.content.size(blob.digest)} bytes in the store, not {blob.size}",
                        hint="remove the images that use it, then pull again",
                    )
                self.progress.layer(blob.digest, phases.EXISTS, blob.size, blob.size)
                return
            try:
                self._from_any(blob, lambda repository: repository.blob(blob, ingest, report))
            except OSError as error:
                if error.errno in _NO_SPACE:
                    ingest.discard()  # a full disk is no place for a part of a blob
                raise
            self.progress.layer(blob.digest, phases.DOWNLOADED, blob.size, blob.size)

    def _from_any(self, blob: Descriptor, fetch: Callable[[Repository], None]) -> None:
        """Try whoever served the manifest; a mirror without this blob is passed over for the registry."""
        serving = self.repositories[-1]
        try:
            fetch(serving)
        except (BlobNotFound, Unavailable):
            origin = self.transport.registries.api_hosts(self.reference.domain)[-1]
            if serving.host == origin:
                raise
            self.progress.warning(f"mirror {serving.host}: blob {blob.digest} not served")
            own = self.credentials.get(self.reference.domain)
            fetch(Repository(origin, self.reference.path, self.transport, own))

    def _unpack(self, blob: Descriptor, diff_id: str, chain_ids: Sequence[str], position: int) -> None:
        """Unpack one layer, unless it is there; whichever way, its diff id is verified."""
        chain_id = chain_ids[position]

        def wait() -> None:
            self.progress.layer(blob.digest, phases.WAITING, blob.size, blob.size)
            self.transport.pause(_POLL_S)

        with self.content.claim(f"unpack-{chain_id.replace(':', '-')}", wait=wait):
            if self.layers.has(chain_id):
                # Somebody else's layer: this blob must be it, not just claim to be (CVE-2026-93318).
                if not self._is_known(blob.digest, diff_id):
                    verify_diff_id(self.content, blob.digest, diff_id)
                self.progress.layer(blob.digest, phases.EXISTS, blob.size, blob.size)
                return
            self.progress.layer(blob.digest, phases.EXTRACTING, 0, blob.size)
            unpack_layer(self.content, blob, diff_id, self.layers, chain_id, chain_ids[:position])
        self.progress.layer(blob.digest, phases.COMPLETE, blob.size, blob.size)

    def _is_known(self, digest: str, diff_id: str) -> bool:
        """Whether an image of the store has this pair: nothing enters the store unverified."""
        for image in self.store.images():
            for blob, known in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True):
                if (blob.digest, known) == (digest, diff_id):
                    return True
        return False


@contextmanager
def _transport(given: Transport | None, registries: Registries) -> Iterator[Transport]:
    if given is not None:
        yield given
        return
    own = Transport(registries)
    try:
        yield own
    finally:
        own.close()


def _cause(error: BaseException, futures: Sequence[Future[None]]) -> BaseException:
    """The failure that made the others be cancelled."""
    if not isinstance(error, Cancelled):
        return error
    for future in futures:
        if future.done() and not future.cancelled():
            failure = future.exception()
            if failure is not None and not isinstance(failure, Cancelled):
                return failure
    return error
