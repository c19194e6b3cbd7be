"""load, save and import with archives that skopeo, podman and umoci write and read, and with hostile ones."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import zstandard

from hutch.errors import (
    AlreadyExists,
    DigestMismatch,
    HutchError,
    ImageNotFound,
    InvalidArgument,
    InvalidConfig,
    InvalidLayer,
    Unavailable,
)
from hutch.image.archive import import_, load, save
from hutch.image.content import ContentStore
from hutch.image.platform import Platform
from hutch.image.reference import Reference
from hutch.image.store import ImageStore
from hutch.snapshot.overlay import OverlaySnapshotter
from tests.conftest import Roots
from tests.support import trees
from tests.support.evil import EvilImage, Layer, digest_of
from tests.support.host import requires
from tests.support.images import Image
from tests.support.programs import run

pytestmark = requires("root")


@dataclass
class Engine:
    """The stores of one data root."""

    root: str

    def __post_init__(self) -> None:
        self.layers = OverlaySnapshotter(self.root, user=False)
        self.store = ImageStore(ContentStore(f"{self.root}/content"), layers=self.layers)

    def load(self, source: str | int, **options: Any) -> list[str]:
        found = load(source, store=self.store, layers=self.layers, **options)
        return [name.familiar() for one in found for name in one.names]

    def save(self, target: str | int, *texts: str, kind: str = "docker-archive") -> None:
        save(texts, target, store=self.store, kind=kind)

    def tree(self, text: str) -> trees.Tree:
        chain = self.store.get(text).chain_ids
        rootfs = self.layers.prepare("tree", chain)
        target = f"{self.root}/tmp/target"
        os.mkdir(target)
        try:
            return trees.through(rootfs.mounts, target)  # type: ignore[no-any-return]
        finally:
            os.rmdir(target)
            self.layers.remove("tree")

    def empty(self) -> bool:
        left = os.listdir(f"{self.root}/tmp") + os.listdir(f"{self.root}/layers")
        return not left and not self.store.images()


@pytest.fixture
def engine(tmp_root: Roots) -> Engine:
    return Engine(tmp_root.data)


@pytest.fixture
def second(tmp_root: Roots) -> Engine:
    return Engine(f"{tmp_root.base}/second")


@requires("program:skopeo")
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_writes_is_loaded(engine: Engine, tmp_root: Roots, layered_image: Image, transport: str):
    path = f"{tmp_root.base}/image"
    layered_image.copy_to(f"{transport}:{path}:example.com/some/image:1.0")
    assert engine.load(path) == ["example.com/some/image:1.0"]
    image = engine.store.get("example.com/some/image:1.0")
    assert len(image.chain_ids) == len(layered_image.manifest()["layers"])
    assert engine.load(path) == ["example.com/some/image:1.0"]  # again: nothing is in the way


@requires("program:skopeo")
def test_one_and_the_same_tree_however_it_came(engine: Engine, second: Engine, tmp_root: Roots, layered_image: Image):
    for number, transport in enumerate(("docker-archive", "oci-archive")):
        path = f"{tmp_root.base}/{transport}"
        layered_image.copy_to(f"{transport}:{path}:example.com/image:{number}")
        (engine, second)[number].load(path)
    assert engine.tree("example.com/image:0") == second.tree("example.com/image:1")


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci-dir"])
def test_what_is_saved_is_loaded_again(engine: Engine, second: Engine, tmp_root: Roots, kind: str):
    one = EvilImage([Layer().file("a", b"1"), Layer("zstd").file("b", b"2")])
    other = EvilImage([one.layers[0], Layer("").file("c", b"3")])
    engine.load(one.write_docker_archive(f"{tmp_root.base}/one", "first:1", "first:also"))
    engine.load(other.write_docker_archive(f"{tmp_root.base}/other", "other:2"))
    target = f"{tmp_root.base}/saved"
    engine.save(target, "first:1", "first:also", "other:2", kind=kind)
    assert second.load(target) == ["first:1", "first:also", "other:2"]
    for name in ("first:1", "other:2"):
        assert second.store.get(name).descriptor.digest == engine.store.get(name).descriptor.digest
        assert second.tree(name) == engine.tree(name)
    if kind != "oci-dir":
        members = run(["tar", "-tf", target]).stdout.split()
        assert len(members) == len(set(members))  # the shared layer is there once


@pytest.mark.parametrize(
    ("program", "kind"),
    [("skopeo", "docker-archive"), ("skopeo", "oci-archive"), ("skopeo", "oci"), ("umoci", "oci")],
)
@requires("program:skopeo", "program:umoci")
def test_others_read_what_is_saved(engine: Engine, tmp_root: Roots, busybox_image: Image, program: str, kind: str):
    busybox_image.copy_to(f"docker-archive:{tmp_root.base}/in:example.com/busybox:1")
    engine.load(f"{tmp_root.base}/in")
    target = f"{tmp_root.base}/out"
    engine.save(target, "example.com/busybox:1", kind="oci-dir" if kind == "oci" else kind)
    if program == "umoci":
        run(["umoci", "unpack", "--image", f"{target}:1", f"{tmp_root.base}/bundle"])
        assert os.path.exists(f"{tmp_root.base}/bundle/rootfs/bin/busybox")
        run(["rm", "-rf", f"{tmp_root.base}/bundle"])
        return
    suffix = ":example.com/busybox:1" if kind == "docker-archive" else ":1"
    shown = json.loads(run(["skopeo", "inspect", "--config", f"{kind}:{target}{suffix}"]).stdout)
    assert shown["rootfs"]["diff_ids"] == list(engine.store.get("example.com/busybox:1").config.rootfs.diff_ids)


def test_a_docker_archive_names_no_zstd_layer_for_old_dockers(engine: Engine, tmp_root: Roots):
    image = EvilImage([Layer("zstd").file("a", b"1"), Layer().file("b", b"2")])
    engine.load(image.write_layout(f"{tmp_root.base}/in", "example.com/image:1"))
    engine.save(f"{tmp_root.base}/out", "example.com/image:1")
    manifest = json.loads(run(["tar", "-xOf", f"{tmp_root.base}/out", "manifest.json"]).stdout)
    names = [image.layers[0].diff_id, image.layers[1].digest]
    assert manifest[0]["Layers"] == [f"blobs/sha256/{digest[7:]}" for digest in names]
    packed = subprocess.run(
        ["tar", "-xOf", f"{tmp_root.base}/out", manifest[0]["Layers"][0]], capture_output=True, check=True
    )
    assert packed.stdout == image.layers[0].tar


def test_streams_come_and_go(engine: Engine, second: Engine, tmp_root: Roots):
    image = EvilImage([Layer().file("a", b"1" * 100_000)])
    with open(image.write_docker_archive(f"{tmp_root.base}/one", "name:1"), "rb") as file:
        packed = gzip.compress(file.read())
    read_fd, write_fd = os.pipe()
    threading.Thread(target=lambda: (os.write(write_fd, packed), os.close(write_fd))).start()
    assert engine.load(read_fd) == ["name:1"]
    os.close(read_fd)

    read_fd, write_fd = os.pipe()
    saver = threading.Thread(target=lambda: (engine.save(write_fd, "name:1"), os.close(write_fd)))
    saver.start()
    assert second.load(read_fd) == ["name:1"]
    saver.join()
    os.close(read_fd)


def test_save_refuses_a_terminal_and_leaves_no_part_of_a_file(engine: Engine, tmp_root: Roots):
    controller_fd, terminal_fd = os.openpty()
    try:
        with pytest.raises(InvalidArgument, match="refusing to write an archive to a terminal"):
            engine.save(terminal_fd, "name")
    finally:
        os.close(controller_fd)
        os.close(terminal_fd)
    with pytest.raises(ImageNotFound):
        engine.save(f"{tmp_root.base}/out", "missing")
    image = EvilImage([Layer().file("a")])
    engine.load(image.write_docker_archive(f"{tmp_root.base}/in", "name:1"))
    os.unlink(engine.store.content.path(image.layers[0].diff_id))
    with pytest.raises(HutchError):
        engine.save(f"{tmp_root.base}/out", "name:1")
    assert sorted(os.listdir(tmp_root.base)) == ["data", "in", "state"]
    os.mkdir(f"{tmp_root.base}/full")
    os.mkdir(f"{tmp_root.base}/full/x")
    with pytest.raises(AlreadyExists):
        engine.save(f"{tmp_root.base}/full", "name:1", kind="oci-dir")


def test_links_between_members_as_old_docker_wrote_them(engine: Engine, tmp_root: Roots):
    image = EvilImage([Layer("").file("a"), Layer("").file("b")])
    archive = Layer("").file("c.json", image.config).directory("1").directory("2")
    archive.file("1/layer.tar", image.layers[0].tar).file("2/layer.tar", image.layers[1].tar)
    archive.directory("3").symlink("3/layer.tar", "../2/layer.tar")
    archive.file(
        "manifest.json",
        json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["1/layer.tar", "3/layer.tar"]}]).encode(),
    )
    with open(f"{tmp_root.base}/archive", "wb") as file:
        file.write(archive.tar)
    assert engine.load(f"{tmp_root.base}/archive") == []
    assert [image.config.rootfs.diff_ids for image in engine.store.images()] == [
        tuple(layer.diff_id for layer in image.layers)
    ]


@pytest.mark.parametrize("victim", ["index.json", "blob", "config", "oci-layout"])
@pytest.mark.parametrize("form", ["directory", "archive"])
def test_d10_links_in_a_layout_are_refused(engine: Engine, tmp_root: Roots, victim: str, form: str):
    image = EvilImage([Layer().file("a", b"1")])
    path = image.write_layout(f"{tmp_root.base}/layout", "name:1")
    name = {
        "blob": f"blobs/sha256/{image.layers[0].digest[7:]}",
        "config": f"blobs/sha256/{digest_of(image.config)[7:]}",
    }.get(victim, victim)
    os.rename(f"{path}/{name}", f"{tmp_root.base}/outside")
    os.symlink(f"{tmp_root.base}/outside", f"{path}/{name}")
    if form == "archive":
        run(["tar", "-C", path, "-cf", f"{path}.tar", "."])
        path += ".tar"
    with pytest.raises(InvalidLayer):
        engine.load(path)
    assert engine.empty()


@pytest.mark.parametrize("name", ["../../outside", "/etc/hutch-evil", "blobs/../../../outside"])
def test_d10_members_never_become_paths(engine: Engine, tmp_root: Roots, name: str):
    with open(f"{tmp_root.base}/archive", "wb") as file:
        file.write(Layer("").file(name, b"evil").device("disk", 7, 0).tar)
    with pytest.raises((InvalidLayer, InvalidConfig)):
        engine.load(f"{tmp_root.base}/archive")
    assert engine.empty()
    assert not os.path.exists("/etc/hutch-evil")
    assert not os.path.exists(f"{tmp_root.base}/outside")


def corrupt(path: str, digest: str, change: Callable[[bytes], bytes]) -> None:
    name = f"{path}/blobs/sha256/{digest[7:]}"
    with open(name, "rb") as file:
        data = file.read()
    with open(name, "wb") as file:
        file.write(change(data))


@pytest.mark.parametrize("victim", ["manifest", "config", "layer"])
@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"\x7f", lambda data: data + b"x", lambda data: data[:-1]])
def test_g05_every_blob_is_verified(engine: Engine, tmp_root: Roots, victim: str, change: Callable[[bytes], bytes]):
    image = EvilImage([Layer().file("a", b"1")])
    path = image.write_layout(f"{tmp_root.base}/layout", "name:1")
    digest = {"manifest": digest_of(image.manifest), "config": digest_of(image.config), "layer": image.layers[0].digest}
    corrupt(path, digest[victim], change)
    with pytest.raises((InvalidConfig, DigestMismatch)):
        engine.load(path)
    assert engine.empty()


def test_g05_the_layer_must_be_the_one_the_configuration_names(engine: Engine, tmp_root: Roots):
    good, evil = Layer().file("a", b"good"), Layer().file("a", b"evil")
    engine.load(EvilImage([good]).write_layout(f"{tmp_root.base}/good", "good:1"))
    liar = EvilImage([evil], config_document={"rootfs": {"type": "layers", "diff_ids": [good.diff_id]}})
    with pytest.raises(DigestMismatch):  # though the layer of that diff id is there already (CVE-2026-93318)
        engine.load(liar.write_layout(f"{tmp_root.base}/liar", "liar:1"))
    fresh = EvilImage([evil], config_document={"rootfs": {"type": "layers", "diff_ids": [digest_of(b"x")]}})
    with pytest.raises(DigestMismatch):
        engine.load(fresh.write_layout(f"{tmp_root.base}/fresh", "fresh:1"))
    counts = EvilImage([good, evil], config_document={"rootfs": {"type": "layers", "diff_ids": [good.diff_id]}})
    with pytest.raises(InvalidConfig):
        engine.load(counts.write_layout(f"{tmp_root.base}/counts", "counts:1"))
    assert [image.references[0].familiar() for image in engine.store.images()] == ["good:1"]


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32, "x", ""])
def test_g04_digests_are_checked_before_they_are_names(engine: Engine, tmp_root: Roots, digest: str):
    image = EvilImage([Layer().file("a")], descriptors=[{"digest": digest}])
    with pytest.raises(InvalidConfig):
        engine.load(image.write_layout(f"{tmp_root.base}/layout", "name:1"))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"Config": "x"}, "not a list"),
        ([{"Config": 1, "Layers": []}], "Config, Layers or RepoTags"),
        ([{"Config": "c.json", "Layers": ["missing"]}], "no such file"),
        ([{"Config": "../../etc/passwd", "Layers": []}], "no such file"),
        ([{"Config": "c.json", "Layers": ["l"] * 200}], "Config, Layers or RepoTags"),
    ],
)
def test_broken_docker_archives_are_clear_errors(engine: Engine, tmp_root: Roots, manifest: Any, message: str):
    with open(f"{tmp_root.base}/archive", "wb") as file:
        file.write(Layer("").file("c.json", b"{}").file("manifest.json", json.dumps(manifest).encode()).tar)
    with pytest.raises((InvalidConfig, InvalidLayer), match=message):
        engine.load(f"{tmp_root.base}/archive")


@pytest.mark.parametrize(
    "data", [b"", b"garbage" * 200, gzip.compress(b"x" * 5000), b"\x1f\x8b\x08garbage", Layer("").tar]
)
def test_what_is_no_archive_is_a_clear_error(engine: Engine, tmp_root: Roots, data: bytes):
    with open(f"{tmp_root.base}/archive", "wb") as file:
        file.write(data)
    with pytest.raises((InvalidConfig, InvalidLayer)):
        engine.load(f"{tmp_root.base}/archive")
    assert engine.empty()


def test_the_platform_is_chosen(engine: Engine, tmp_root: Roots, multi_platform_image: Image):
    for architecture in ("amd64", "arm64"):
        image = load(
            multi_platform_image.path,
            store=engine.store,
            layers=engine.layers,
            platform=Platform(os="linux", architecture=architecture),
        )[0].image
        assert image.platform.architecture == architecture
    with pytest.raises(InvalidConfig, match="no image for platform"):
        engine.load(multi_platform_image.path, platform=Platform(os="linux", architecture="riscv64"))


# import

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_import_makes_an_image_of_a_tree(engine: Engine, second: Engine, tmp_root: Roots, packer: str):
    tar = (
        Layer("")
        .directory("etc", 0o711)
        .file("etc/motd", b"hello\n", mode=0o640, uid=3)
        .symlink("link", "etc/motd")
        .tar
    )
    with open(f"{tmp_root.base}/tree", "wb") as file:
        file.write(PACKERS[packer](tar))
    changes = [
        'CMD ["sh", "-c", "true"]', "ENTRYPOINT exec top", "ENV A=1 B='two words'", "ENV C old form",
        "EXPOSE 80 53/udp 8000-8002",
        "LABEL x=y", "USER 5:6", "VOLUME /data /more", "WORKDIR /srv", "WORKDIR sub", "STOPSIGNAL SIGUSR1",
        "HEALTHCHECK --interval=1m30s --retries=3 CMD true", 'cmd ["last"]',
    ]  # fmt: skip
    image = import_(
        f"{tmp_root.base}/tree",
        Reference.parse("made:1"),
        store=engine.store,
        layers=engine.layers,
        changes=changes,
        message="why",
    )
    config = image.config.config
    assert (config.cmd, config.entrypoint) == (("last",), ("/bin/sh", "-c", "exec top"))
    assert config.env == ("A=1", "B=two words", "C=old form")
    assert set(config.exposed_ports) == {"80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp"}
    assert (config.labels, config.user, set(config.volumes)) == ({"x": "y"}, "5:6", {"/data", "/more"})
    assert (config.working_dir, config.stop_signal) == ("/srv/sub", "SIGUSR1")
    assert config.healthcheck is not None
    assert (config.healthcheck.test, config.healthcheck.interval) == (("CMD-SHELL", "true"), 90_000_000_000)
    assert image.config.history[0].comment == "why"
    assert image.config.rootfs.diff_ids == (digest_of(tar),)
    tree = engine.tree("made:1")
    assert tree["etc/motd"][:3] == [oct(0o100640), 3, 0]
    engine.save(f"{tmp_root.base}/saved", "made:1")
    assert second.load(f"{tmp_root.base}/saved") == ["made:1"]


@pytest.mark.parametrize(
    "change",
    ["RUN true", "FROM x", "CMD", "EXPOSE 0", "EXPOSE x", "ENV =x", "LABEL 'open", "HEALTHCHECK --x=1 CMD a"],
)
def test_import_refuses_other_changes(engine: Engine, tmp_root: Roots, change: str):
    with pytest.raises(InvalidArgument, match="change"):
        import_("/nonexistent", None, store=engine.store, layers=engine.layers, changes=[change])


def test_import_from_a_url_and_from_a_stream(engine: Engine, tmp_root: Roots):
    tar = Layer("").file("a", b"1" * 5_000_000).tar

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/tree" else 404)
            self.end_headers()
            self.wfile.write(tar if self.path == "/tree" else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        image = import_(f"{url}/tree", None, store=engine.store, layers=engine.layers)
        with pytest.raises(Unavailable, match="answered 404"):
            import_(f"{url}/missing", None, store=engine.store, layers=engine.layers)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        feeder = threading.Thread(target=lambda: (cat.stdin.write(tar), cat.stdin.close()))  # type: ignore[union-attr]
        feeder.start()
        again = import_(cat.stdout.fileno(), None, store=engine.store, layers=engine.layers)
        feeder.join()
    assert again.chain_ids == image.chain_ids


def test_import_of_what_tarfile_writes(engine: Engine, tmp_root: Roots):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.add(os.path.dirname(json.__file__), "package")
    with open(f"{tmp_root.base}/tree", "wb") as file:
        file.write(out.getvalue())
    image = import_(f"{tmp_root.base}/tree", None, store=engine.store, layers=engine.layers)
    assert set(engine.tree(image.id)) >= {".", "package", "package/__init__.py"}
