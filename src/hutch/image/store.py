"""The images of this host: `index.json` of the layout is the list of them.

An entry of index.json is a manifest with a name: ``docker.io/library/alpine:latest``, or
``docker.io/library/alpine@sha256:…`` for the digest under which a registry served it (Docker's
RepoDigest), or no name at all for an image that lost its last one (`<none>`). An image is all
entries whose manifests have the same configuration; the digest of that is the image id.

Names are kept in our own annotations. Annotations and labels of images are never copied there,
so no image can speak to the engine (CVE-2026-53488).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from hutch.errors import (
    BlobNotFound,
    Conflict,
    HutchError,
    ImageNotFound,
    InvalidArgument,
    InvalidConfig,
    InvalidReference,
    RegistryUnavailable,
)
from hutch.image import digest as digests
from hutch.image.content import ContentStore
from hutch.image.image import Image, Removal, Use, image_of
from hutch.image.lease import Lease, leased, store_lock
from hutch.image.manifest import (
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    ImageConfig,
    Manifest,
    check_layers,
    parse_config,
    parse_manifest,
)
from hutch.image.names import Entry, NameList, put
from hutch.image.reference import DEFAULT_DOMAIN, Reference

__all__ = ["Image", "ImageStore", "Layers", "Removal", "Use"]

_ID_PREFIX = re.compile(r"\A[a-f0-9]{1,64}\Z")


class Layers(Protocol):
    """What the store needs of a Snapshotter: the unpacked layers, by chain id."""

    def layers(self) -> list[str]:
        """The chain ids there are."""

    def remove_layer(self, chain_id: str) -> None:
        """Remove one."""


class ImageStore:
    """Images by name, id and digest.

    Args:
        content: where the blobs are.
        layers: the unpacked layers to collect along with them; None collects blobs only.
        uses: asks the engine which containers stand on images. It is called while the lock of
            the store is held: it must not call the store.
        default_domain: registry of a name without one.
        told: gets what happened, in Docker's word, the image's id (of a pull its name), its name, and its labels.
    """

    def __init__(
        self,
        content: ContentStore,
        *,
        layers: Layers | None = None,
        uses: Callable[[], Iterable[Use]] = tuple,
        default_domain: str = DEFAULT_DOMAIN,
        told: Callable[[str, str, str, dict[str, str]], None] = lambda *_: None,
    ) -> None:
        self.content = content
        self._layers = layers
        self._uses = uses
        self._default_domain = default_domain
        self._told = told
        self._names = NameList(content.root)
        if not self._names.exists():
            try:
                with self._locked():
                    if not self._names.exists():
                        self._names.write([])
            except OSError as problem:
                if problem.errno not in (errno.EROFS, errno.ENOENT):  # an empty one, and it stays so
                    raise

    # -- reading -----------------------------------------------------------------------------

    def images(self) -> list[Image]:
        """Every image that is whole, newest first; broken ones are left to `broken`."""
        images, _ = self._load_named()
        return sorted(images, key=lambda image: image.config.created, reverse=True)

    def broken(self) -> list[tuple[str, str]]:
        """The name (or manifest digest) of every image that cannot be read, and why."""
        return self._load_named()[1]

    def get(self, text: str) -> Image:
        """Find an image by name, digest, id or the beginning of an id; names go first.

        Args:
            text: untrusted.

        Raises:
            ImageNotFound: nothing is called so.
            InvalidArgument: several ids begin so.
        """
        entries = self._names.read()
        while True:
            try:
                return self._find(entries, text)
            except BlobNotFound:
                # Names go before blobs: an image that is being removed loses its name first.
                before, entries = entries, self._names.read()
                if entries == before:
                    raise

    def _find(self, entries: Sequence[Entry], text: str) -> Image:
        named = self._named(entries, text)
        if named is not None:
            return self._load(entries, named)
        prefix = text.removeprefix("sha256:")
        if _ID_PREFIX.match(prefix):
            images, _ = self._load_all(entries)
            found = [image for image in images if image.id.startswith(f"sha256:{prefix}")]
            if len(found) > 1:
                raise InvalidArgument(f"image id {text}: {len(found)} images begin so", hint="give more of the id")
            if found:
                return found[0]
        raise ImageNotFound(f"image {text[:300]!r}: no such image")

    @contextmanager
    def using(self, text: str) -> Iterator[Image]:
        """Find an image as `get` does, and keep its blobs and layers from collection meanwhile."""
        with self.lease() as lease:
            image = self.get(text)
            lease.add([image.id, image.descriptor.digest, *image.chain_ids])
            lease.add(layer.digest for layer in image.manifest.layers)
            yield self.get(image.id)  # again: it may have gone before it was claimed

    def lease(self) -> Lease:
        """Begin to claim blobs and layers; see `hutch.image.lease`."""
        return Lease(self.content.root)

    @contextmanager
    def bringing(self) -> Iterator[Lease]:
        """A lease for what is brought into the store; when that fails for good, what has come of it goes again.

        After a registry that went away it stays, half a blob too, and spares the next attempt.
        """
        lease = self.lease()
        try:
            with lease:
                yield lease
        except RegistryUnavailable:
            raise
        except (HutchError, OSError):
            with suppress(HutchError, OSError):  # the failure itself matters more, and `prune` does the same
                self.collect()
                self.content.remove_partials(lease.names)
            raise

    # -- changing ----------------------------------------------------------------------------

    def add(
        self,
        references: Sequence[Reference],
        descriptor: Descriptor,
        *,
        source: str | None = None,
        action: str = "load",
    ) -> Image:
        """Enter an image whose blobs are in the store.

        Args:
            references: names with tags or digests, as a user or a registry gave them; a tag that
                another image has is taken from it. None at all enters an image without a name.
            descriptor: of the manifest.
            source: digest of the index it was chosen from, whose blob is then kept.
            action: where it comes from, as events say it: pull, load, import or create.

        Raises:
            BlobNotFound, DigestMismatch, InvalidConfig: manifest or configuration are not right.
        """
        plain = Descriptor(
            media_type=descriptor.media_type,
            digest=descriptor.digest,
            size=descriptor.size,
            platform=self._parts(descriptor)[1].platform,
        )
        with self._locked():
            entries = self._names.read()
            for reference in references:
                entries = put(entries, Entry(reference, plain, source))
            if not references and all(entry.descriptor.digest != plain.digest for entry in entries):
                entries.append(Entry(None, plain, source))
            self._names.write(entries)
            image = self._load(entries, plain)
        if action == "pull" and references:
            self._told(action, references[0].familiar(), references[0].familiar_name, _labels(image))
        else:
            self.happened(action, image)
        return image

    def happened(self, action: str, image: Image, name: str = "") -> None:
        """Let it be known what was done with an image."""
        self._told(action, image.id, name or image.id, _labels(image))

    def tag(self, source: str, target: Reference) -> None:
        """Give the image `source` the name `target`, as ``docker tag`` does.

        Raises:
            ImageNotFound: no `source`.
            InvalidReference: `target` has a digest.
        """
        if target.digest is not None:
            raise InvalidReference(f"image name {target}: a digest cannot be given to an image")
        with self._locked():
            image = self.get(source)
            entries = self._names.read()
            origin = next((e.source for e in entries if e.descriptor.digest == image.descriptor.digest), None)
            self._names.write(put(entries, Entry(target.with_default_tag(), image.descriptor, origin)))
        self.happened("tag", image, target.with_default_tag().familiar())

    def remove(self, text: str, *, force: bool = False) -> Removal:
        """Take a name away, and with the last name the image; or an image with all its names, by id.

        Args:
            text: name, digest, id or the beginning of an id.
            force: even if stopped containers stand on it, or it has names in several repositories.

        Raises:
            ImageNotFound, InvalidArgument: as `get`.
            Conflict: a container stands on it, or (by id) it has names in several repositories.
        """
        with self._locked():
            entries = self._names.read()
            named = self._named(entries, text)
            try:
                image = self._load(entries, named) if named else self.get(text)
            except ImageNotFound:
                raise
            except HutchError:
                if named is None:
                    raise
                return self._remove_broken(entries, named)
            mine = [entry for entry in entries if self._is_of(entry, image)]
            going = mine if named is None else self._names_to_take(mine, text)
            by_id = named is None
            if by_id and not force and len({entry.name.name for entry in mine if entry.name}) > 1:
                raise Conflict(
                    f"image {_short(image.id)}: has names in several repositories", hint="remove them by name, or force"
                )
            last = len(going) == len(mine)
            if last and self._check_unused(image, force=force, by_id=by_id):
                # Its name goes, the image stays for the container that runs on it.
                keep = [Entry(None, mine[0].descriptor, mine[0].source)]
                last = False
            else:
                keep = []
            self._names.write([entry for entry in entries if entry not in going] + keep)
            untagged = tuple(entry.name.familiar() for entry in going if entry.name)
            layers, freed = self._collect() if last else ((), 0)
        self._gone(image, names=len(untagged), deleted=last)
        return Removal(untagged=untagged, deleted=(image.id, *layers) if last else (), freed=freed)

    def _gone(self, image: Image, *, names: int, deleted: bool) -> None:
        for _ in range(names):
            self.happened("untag", image)
        if deleted:
            self.happened("delete", image)

    def prune(self, *, everything: bool = False, matches: Callable[[Image], bool] | None = None) -> Removal:
        """Remove images that no container uses, partial downloads and unreferenced blobs.

        Args:
            everything: also images that have a tag.
            matches: the filters of the user; False keeps an image.
        """
        with self._locked():
            entries = self._names.read()
            used = {use.image_id for use in self._uses()}
            protected = leased(self.content.root)
            images, _ = self._load_all(entries)
            going = [
                image
                for image in images
                if (everything or not image.references)
                and not {image.id, image.descriptor.digest} & (used | protected)
                and (matches is None or matches(image))
            ]
            gone = [entry for entry in entries if any(self._is_of(entry, image) for image in going)]
            self._names.write([entry for entry in entries if entry not in gone])
            layers, freed = self._collect()
            freed += self.content.remove_partials()
        for image in going:
            self._gone(image, names=sum(bool(entry.name) for entry in gone if self._is_of(entry, image)), deleted=True)
        untagged = tuple(entry.name.familiar() for entry in gone if entry.name)
        return Removal(untagged, (*(image.id for image in going), *layers), freed)

    def collect(self) -> int:
        """Remove blobs and layers that no image, container or lease needs; return the bytes freed."""
        with self._locked():
            return self._collect()[1]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with store_lock(self.content.root):
            yield

    # -- finding -----------------------------------------------------------------------------

    def _named(self, entries: Sequence[Entry], text: str) -> Descriptor | None:
        try:
            wanted = Reference.parse(text, default_domain=self._default_domain).with_default_tag()
        except InvalidReference:
            return None
        if wanted.digest is None:
            return next((entry.descriptor for entry in entries if entry.name == wanted), None)
        for entry in entries:
            if entry.name is None or entry.name.name != wanted.name:
                continue
            if wanted.digest in (entry.name.digest, entry.descriptor.digest, entry.source):
                return entry.descriptor
        return None

    def _parts(self, descriptor: Descriptor) -> tuple[Manifest, ImageConfig]:
        data = self.content.read(descriptor.digest, MAX_MANIFEST_BYTES)
        manifest = parse_manifest(data, descriptor.media_type)
        if not isinstance(manifest, Manifest):
            raise InvalidConfig(f"manifest {descriptor.digest}: an index, not an image")
        config = parse_config(self.content.read(manifest.config.digest, MAX_CONFIG_BYTES))
        check_layers(manifest, config)
        return manifest, config

    def _load(self, entries: Sequence[Entry], descriptor: Descriptor) -> Image:
        manifest, config = self._parts(descriptor)
        names = {entry.name for entry in entries if entry.name and entry.descriptor.digest == descriptor.digest}
        return image_of(descriptor, manifest, config, names)

    def _load_named(self) -> tuple[list[Image], list[tuple[str, str]]]:
        """`_load_all` of the names there are, without calling broken what is removed meanwhile."""
        entries = self._names.read()
        while True:
            images, broken = self._load_all(entries)
            before, entries = entries, self._names.read() if broken else entries
            if entries == before:
                return images, broken

    def _load_all(self, entries: Sequence[Entry]) -> tuple[list[Image], list[tuple[str, str]]]:
        images: dict[str, Image] = {}
        broken: list[tuple[str, str]] = []
        for entry in {entry.descriptor.digest: entry for entry in entries}.values():
            try:
                image = self._load(entries, entry.descriptor)
            except (HutchError, OSError) as error:
                broken.append((entry.name.familiar() if entry.name else entry.descriptor.digest, str(error)))
                continue
            if image.id in images:  # the same configuration, its layers compressed in another way
                first = images[image.id]
                names = {*first.references, *first.digests, *image.references, *image.digests}
                image = image_of(first.descriptor, first.manifest, first.config, names)
            images[image.id] = image
        return list(images.values()), broken

    def _is_of(self, entry: Entry, image: Image) -> bool:
        if entry.descriptor.digest == image.descriptor.digest or entry.name in (*image.references, *image.digests):
            return True
        with suppress(HutchError):
            return self._parts(entry.descriptor)[0].config.digest == image.id
        return False

    # -- removing ----------------------------------------------------------------------------

    def _names_to_take(self, mine: Sequence[Entry], text: str) -> list[Entry]:
        """The entry called `text`; with a repository's last tag go its digests, as in Docker."""
        wanted = Reference.parse(text, default_domain=self._default_domain).with_default_tag()
        if wanted.digest is not None:
            return [
                entry
                for entry in mine
                if entry.name and entry.name.name == wanted.name and entry.name.digest == wanted.digest
            ]
        going = [entry for entry in mine if entry.name == wanted]
        siblings = [entry for entry in mine if entry.name and entry.name.name == wanted.name and entry not in going]
        if all(entry.name and entry.name.tag is None for entry in siblings):
            going += siblings
        return going

    def _check_unused(self, image: Image, *, force: bool, by_id: bool) -> bool:
        """Refuse what a container forbids; True if the image must stay for its containers."""
        uses = [use for use in self._uses() if use.image_id == image.id]
        if not uses:
            return False
        running = [use for use in uses if use.running]
        if by_id and running:
            raise Conflict(f"image {_short(image.id)}: container {running[0].container_id[:12]} is running on it")
        if not force:
            raise Conflict(
                f"image {_short(image.id)}: container {uses[0].container_id[:12]} uses it",
                hint="remove the container first, or force",
            )
        return bool(running)

    def _remove_broken(self, entries: Sequence[Entry], descriptor: Descriptor) -> Removal:
        going = [entry for entry in entries if entry.descriptor.digest == descriptor.digest]
        self._names.write([entry for entry in entries if entry not in going])
        layers, freed = self._collect()
        untagged = tuple(entry.name.familiar() for entry in going if entry.name)
        return Removal(untagged, layers, freed)

    def _collect(self) -> tuple[tuple[str, ...], int]:
        """Mark from index.json, containers and leases; sweep the rest. Returns layers and bytes."""
        keep = leased(self.content.root)
        for use in self._uses():
            keep.update(use.chain_ids)
        for entry in self._names.read():
            keep.add(entry.descriptor.digest)
            keep.update(filter(None, [entry.source]))
            with suppress(HutchError, OSError):
                manifest, config = self._parts(entry.descriptor)
                keep.update([manifest.config.digest, *(layer.digest for layer in manifest.layers)])
                keep.update(digests.chain_ids(config.rootfs.diff_ids))
        freed = sum(self.content.remove(digest) for digest in list(self.content.digests()) if digest not in keep)
        layers = [chain for chain in self._layers.layers() if chain not in keep] if self._layers else []
        for chain in layers:
            assert self._layers is not None
            self._layers.remove_layer(chain)
        return tuple(layers), freed


def _labels(image: Image) -> dict[str, str]:
    return dict(image.config.config.labels)


def _short(image_id: str) -> str:
    return image_id.partition(":")[2][:12]
