"""Images by name, id and digest; removal and collection."""

from __future__ import annotations

import json
import os
import threading

import pytest

from hutch.errors import (
    BlobNotFound,
    Conflict,
    ImageNotFound,
    InvalidArgument,
    InvalidConfig,
    InvalidLayer,
    InvalidReference,
    RegistryUnavailable,
)
from hutch.image import digest as digests
from hutch.image import manifest as m
from hutch.image.content import ContentStore
from hutch.image.reference import Reference
from hutch.image.store import ImageStore, Use


class Layers:
    """Unpacked layers that are only names."""

    def __init__(self):
        self.there = set()

    def layers(self):
        return sorted(self.there)

    def remove_layer(self, chain_id):
        self.there.remove(chain_id)


class Host:
    """A store, layers, and the containers the engine would tell of."""

    def __init__(self, root):
        self.layers, self.uses = Layers(), []
        self.content = ContentStore(root)
        self.store = ImageStore(self.content, layers=self.layers, uses=lambda: list(self.uses))

    def make(self, *layers, created="2024-01-01T00:00:00Z", gzip=b"", lease=None):
        """Blobs of an image with these layers; returns the manifest's descriptor."""

        def put(data):
            if lease:
                lease.add([digests.of(data)])
            return self.content.add(data)

        blobs = [gzip + layer.encode() for layer in layers]
        diff_ids = [digests.of(layer.encode()) for layer in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": layer} for layer in layers] + [{"created_by": "CMD", "empty_layer": True}],
        }
        data = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": m.OCI_MANIFEST,
            "config": {"mediaType": m.OCI_CONFIG, "digest": put(data), "size": len(data)},
            "layers": [{"mediaType": m.OCI_LAYER, "digest": put(blob), "size": len(blob)} for blob in blobs],
        }
        raw = json.dumps(manifest).encode()
        self.layers.there.update(digests.chain_ids(diff_ids))
        return m.Descriptor(media_type=m.OCI_MANIFEST, digest=put(raw), size=len(raw))

    def add(self, name, *layers, **options):
        references = [Reference.parse(name).with_default_tag()] if name else []
        return self.store.add(references, self.make(*layers, **options))

    def blobs(self):
        return set(self.content.digests())


@pytest.fixture
def host(tmp_path):
    return Host(str(tmp_path))


def names(image):
    return [str(reference) for reference in (*image.references, *image.digests)]


def test_an_image_is_found_by_name_id_and_digest(host):
    image = host.add("alpine", "a")
    pulled = Reference.parse("alpine").with_digest(image.descriptor.digest)
    image = host.store.add([pulled], image.descriptor)
    for text in (
        "alpine",
        "alpine:latest",
        "docker.io/library/alpine",
        str(pulled),
        f"alpine:whatever@{image.descriptor.digest}",
        image.id,
        image.id[:15],
        image.id[7:],
        image.id[7:11],
    ):
        assert host.store.get(text) == image
    assert names(image) == ["docker.io/library/alpine:latest", str(pulled)]
    for text in ("alpine:3", "other", "sha256:" + "0" * 64, "ffff" * 16, f"other@{image.descriptor.digest}", "A B"):
        with pytest.raises(ImageNotFound):
            host.store.get(text)


def test_another_process_sees_the_same_images_newest_first(host):
    host.add("old", "a", created="2020-01-01T00:00:00Z")
    host.add("new", "b", created="2025-01-01T00:00:00Z")
    other = ImageStore(ContentStore(host.content.root))
    assert [names(image)[0] for image in other.images()] == [
        "docker.io/library/new:latest",
        "docker.io/library/old:latest",
    ]


def test_history_pairs_steps_with_layers(host):
    steps = host.add("x", "a", "b").history()
    assert [(step.created_by, blob is not None) for step, blob in steps] == [("CMD", False), ("b", True), ("a", True)]


def test_a_name_that_moves_leaves_an_image_without_a_name(host):
    old = host.add("app", "a")
    new = host.add("app", "b")
    assert host.store.get("app").id == new.id
    assert host.store.get(old.id).references == ()
    removed = host.store.prune()
    assert old.id in removed.deleted
    assert new.id not in removed.deleted
    with pytest.raises(ImageNotFound):
        host.store.get(old.id)


def test_tagging(host):
    image = host.add("app:1", "a")
    host.store.tag("app:1", Reference.parse("example.org/app:2"))
    host.store.tag(image.id[7:15], Reference.parse("other"))
    assert names(host.store.get("other")) == [
        "docker.io/library/app:1",
        "docker.io/library/other:latest",
        "example.org/app:2",
    ]
    with pytest.raises(ImageNotFound):
        host.store.tag("nothing", Reference.parse("x"))
    with pytest.raises(InvalidReference):
        host.store.tag("app:1", Reference.parse("x").with_digest(image.id))


def test_removing_a_name_and_with_the_last_one_the_image(host):
    shared = host.add("keep", "base")
    image = host.add("app:1", "base", "top")
    host.store.add([Reference.parse("app").with_digest(image.descriptor.digest)], image.descriptor)
    host.store.tag("app:1", Reference.parse("app:2"))
    assert host.store.remove("app:1").untagged == ("app:1",)
    removed = host.store.remove("app:2")
    assert removed.untagged == ("app:2", f"app@{image.descriptor.digest}")
    assert removed.deleted == (image.id, image.chain_ids[1])
    assert removed.freed > 0
    assert host.store.get("keep") == shared
    assert host.layers.there == set(shared.chain_ids)
    assert host.blobs() == {shared.descriptor.digest, shared.id, shared.manifest.layers[0].digest}


def test_removing_by_id_takes_all_names_but_asks_before_several_repositories(host):
    image = host.add("app:1", "a")
    host.store.tag("app:1", Reference.parse("app:2"))
    host.store.tag("app:1", Reference.parse("other:1"))
    with pytest.raises(Conflict, match="several repositories"):
        host.store.remove(image.id)
    assert len(host.store.remove(image.id[:20], force=True).untagged) == 3
    assert host.blobs() == set()


def test_an_ambiguous_beginning_of_an_id_is_refused(host):
    ids = [host.add(f"i{n}", f"{n}").id for n in range(17)]  # two of them begin with the same digit
    first = next(i[7] for i in ids if sum(j[7] == i[7] for j in ids) > 1)
    for use in (host.store.get, host.store.remove):
        with pytest.raises(InvalidArgument, match="images begin so"):
            use(first)
    assert len(host.store.images()) == 17


def test_what_a_container_uses_is_kept(host):
    image = host.add("app", "a", "b")
    host.uses.append(Use("c" * 64, image.id, image.chain_ids, running=True))
    for text in ("app", image.id):
        with pytest.raises(Conflict, match="cccccccccccc"):
            host.store.remove(text)
    with pytest.raises(Conflict, match="is running"):
        host.store.remove(image.id, force=True)
    assert host.store.prune(everything=True).deleted == ()

    assert host.store.remove("app", force=True).untagged == ("app:latest",)  # by name: the image stays, nameless
    assert host.store.get(image.id).references == ()

    host.uses[:] = [Use("c" * 64, image.id, image.chain_ids)]
    with pytest.raises(Conflict, match="uses it"):
        host.store.remove(image.id)
    assert host.store.remove(image.id, force=True).deleted == (image.id,)
    assert host.layers.there == set(image.chain_ids)  # the stopped container still stands on them
    host.uses.clear()
    host.store.collect()
    assert host.layers.there == set()


def test_prune_by_choice(host):
    host.add("app", "a")
    dangling = host.add("", "b")
    partial = host.content.ingest(digests.of(b"x"), 5)
    partial.write(b"abc")
    partial.close()
    assert host.store.prune(matches=lambda image: False).deleted == ()
    removed = host.store.prune()
    assert removed.deleted[0] == dangling.id
    assert os.listdir(f"{host.content.root}/ingest") == []
    assert host.store.prune(everything=True).untagged == ("app:latest",)
    assert host.blobs() == set()


def test_one_configuration_in_two_manifests_is_one_image(host):
    first = host.add("plain", "a")
    second = host.add("packed", "a", gzip=b"z")
    assert first.id == second.id
    assert first.descriptor.digest != second.descriptor.digest
    (image,) = host.store.images()
    assert len(image.references) == 2
    assert host.store.remove("plain").deleted == ()
    assert host.store.get(image.id[7:20]).id == image.id
    assert host.store.remove("packed").deleted[0] == image.id


def test_x18_leased_blobs_and_layers_survive_collection(host):
    image = host.add("app", "a")
    with host.store.using("app") as used:
        host.store.remove("app")
        assert set(image.chain_ids) <= host.layers.there
        assert {used.id, used.descriptor.digest} <= host.blobs()
    host.store.collect()
    assert host.blobs() == set()
    assert host.layers.there == set()


def test_x18_adding_and_removing_side_by_side_loses_nothing(host):
    failures = []

    def work(n):
        try:
            for turn in range(5):
                with host.store.lease() as lease:
                    for name in ("keep", "gone"):
                        descriptor = host.make(f"{name}{n}.{turn}", lease=lease)
                        host.store.add([Reference.parse(f"{name}:{n}")], descriptor)
                host.store.remove(f"gone:{n}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    host.store.prune()
    assert [str(image.references[0]) for image in sorted(host.store.images(), key=names)] == [
        f"docker.io/library/keep:{n}" for n in range(6)
    ]
    assert len(host.blobs()) == 18


@pytest.mark.parametrize("damage", ["manifest", "config", "gone"])
def test_x9_a_damaged_image_is_named_and_can_be_removed(host, damage):
    good, bad = host.add("good", "g"), host.add("bad", "b")
    path = host.content.path(bad.id if damage == "config" else bad.descriptor.digest)
    os.unlink(path)
    if damage != "gone":
        with open(path, "wb") as file:
            file.write(b"{}")
    assert host.store.images() == [good]
    ((name, why),) = host.store.broken()
    assert name == "bad:latest"
    assert "blob" in why
    assert host.store.remove("bad").untagged == ("bad:latest",)
    assert host.store.broken() == []
    assert host.store.get("good") == good


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"manifests":[{}]}', b'{"schemaVersion":2,"manifests":[],"manifests":[]}']
)
def test_x9_a_damaged_list_is_named(host, data):
    with open(f"{host.content.root}/index.json", "wb") as file:
        file.write(data)
    with pytest.raises(InvalidConfig, match=r"index\.json"):
        host.store.images()


def test_c11_annotations_of_an_image_do_not_enter_the_list(host):
    descriptor = host.make("a")
    evil = m.Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations={
            "org.opencontainers.image.ref.name": "docker.io/library/alpine:latest",
            "dev.hutch.source.index": "x",
        },
        urls=("http://example.org/",),
    )
    host.store.add([Reference.parse("evil:1")], evil)
    with open(f"{host.content.root}/index.json") as file:
        text = file.read()
    assert "alpine" not in text
    assert "example.org" not in text
    with pytest.raises(ImageNotFound):
        host.store.get("alpine")


class _PrunedMeanwhile(ContentStore):
    """Another process removes everything between the list of names and the first blob."""

    pending = True

    def read(self, digest, limit):
        if self.pending:
            self.pending = False
            ImageStore(ContentStore(self.root), layers=None).prune(everything=True)
        return super().read(digest, limit)


def test_an_image_removed_while_it_is_read_is_not_there_rather_than_broken(host):
    host.add("alpine", "a")
    with pytest.raises(ImageNotFound):
        ImageStore(_PrunedMeanwhile(host.content.root)).get("alpine")
    host.add("alpine", "a")
    store = ImageStore(_PrunedMeanwhile(host.content.root))
    assert store.broken() == []
    assert store.images() == []


def test_an_image_without_its_blob_stays_broken(host):
    image = host.add("alpine", "a")
    host.content.remove(image.id)
    with pytest.raises(BlobNotFound):
        host.store.get("alpine")
    assert len(host.store.broken()) == 1


@pytest.mark.parametrize(("failure", "kept"), [(InvalidLayer, False), (RegistryUnavailable, True), (OSError, False)])
def test_half_a_blob_stays_for_another_try_only_where_there_can_be_one(host, failure, kept):
    def half(data):
        digest = digests.of(data)
        with host.content.ingest(digest, len(data)) as ingest:
            ingest.write(data[:5])
        return digest

    mine, others = half(b"wanted by this pull"), half(b"wanted by one that was interrupted")
    with pytest.raises(failure), host.store.bringing() as lease:
        lease.add([mine, "sha256-no-digest"])
        raise failure("no")
    assert host.content.partial_size(mine) == (5 if kept else 0)
    assert host.content.partial_size(others) == 5
