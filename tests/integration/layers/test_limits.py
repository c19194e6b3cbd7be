"""Bombs, broken streams and full disks: rows D8, D9, D11 and D13. Whatever happens, nothing stays."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator

import pytest
import zstandard

from hutch.errors import HutchError, InvalidLayer, NotSupported, Unavailable
from hutch.image.content import ContentStore
from hutch.image.limits import Limits
from hutch.image.manifest import Descriptor
from hutch.image.unpack import unpack_into, unpack_layer
from hutch.snapshot.overlay import OverlaySnapshotter
from tests.conftest import Roots
from tests.integration.layers.conftest import Place
from tests.support import evil
from tests.support.evil import Layer, digest_of
from tests.support.host import requires

pytestmark = requires("root")

MIB = 1 << 20


def zeros(mebibytes: int) -> Iterator[bytes]:
    """A layer with one file of zeros."""
    yield evil.header("zeros", size=mebibytes * MIB)
    for _ in range(mebibytes):
        yield bytes(MIB)
    yield bytes(1024)


def packed(mebibytes: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(compressor.compress(chunk) for chunk in zeros(mebibytes)) + compressor.flush()


def test_d13_ten_gibibytes_of_zeros_stop_at_the_limit(place: Place):
    bomb = packed(1024)
    begin = time.monotonic()
    with pytest.raises(InvalidLayer, match="a decompression bomb"):
        place.unpack_blob(bomb, limits=Limits(ratio_from=64 * MIB))
    with pytest.raises(InvalidLayer, match=f"more than {100 * MIB} bytes"):
        place.unpack_blob(bomb, limits=Limits(bytes_max=100 * MIB))
    assert time.monotonic() - begin < 20
    used = subprocess.run(["du", "-sm", place.directory], capture_output=True, text=True, check=True).stdout
    assert int(used.split()[0]) < 150


def test_d13_many_members_and_zstd_frames_are_one_stream(place: Place):
    members = gzip.compress(b"") * 1000 + b"".join(gzip.compress(chunk) for chunk in zeros(80))
    with pytest.raises(InvalidLayer, match="a decompression bomb"):
        place.unpack_blob(members, limits=Limits(ratio_from=64 * MIB))
    frames = b"".join(zstandard.compress(chunk) for chunk in zeros(80))
    with pytest.raises(InvalidLayer, match="a decompression bomb"):
        place.unpack_blob(frames, limits=Limits(ratio_from=64 * MIB))


def test_d13_many_empty_files_stop_at_the_limit(place: Place):
    body = b"".join(evil.header(f"f{number}") for number in range(3000))
    with pytest.raises(InvalidLayer, match="more than 1000 files"):
        place.unpack_blob(body, limits=Limits(inodes_max=1000))
    assert len(os.listdir(place.directory)) <= 1000


def test_d13_directories_that_no_entry_lists_count(place: Place):
    with pytest.raises(InvalidLayer, match="more than 100 files"):
        place.unpack(Layer("").file("/".join("d" * 300)), limits=Limits(inodes_max=100))


def test_d13_a_zstd_window_is_bounded(place: Place):
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = frame.compress(Layer("").file("a", os.urandom(100)).tar) + frame.flush()
    with pytest.raises(InvalidLayer, match="zstd"):
        place.unpack_blob(blob)


def test_d13_holes_cost_nothing(place: Place):
    pax: dict[str | bytes, str | bytes] = {"GNU.sparse.map": "0,4", "GNU.sparse.size": str(1 << 40)}
    place.unpack(Layer("").file("sparse", b"data", pax=pax))
    found = os.stat(place.path("sparse"))
    assert (found.st_size, found.st_blocks < 100) == (1 << 40, True)


BROKEN = {
    "gzip truncated": gzip.compress(Layer("").file("a", os.urandom(100_000)).tar)[:-5000],
    "gzip without trailer": gzip.compress(Layer("").file("a").tar)[:-8],
    "gzip crc": gzip.compress(Layer("").file("a").tar)[:-8] + b"\0" * 8,
    "gzip garbage": b"\x1f\x8b" + b"garbage" * 100,
    "gzip then garbage": gzip.compress(Layer("").file("a").tar) + b"garbage",
    "zstd truncated": zstandard.compress(Layer("").file("a", os.urandom(100_000)).tar)[:-5000],
    "zstd garbage": b"\x28\xb5\x2f\xfd" + b"garbage" * 100,
    "tar truncated": Layer("").file("a", b"x" * 100_000).tar[:-50_000],
    "garbage": b"garbage" * 1000,
    "bzip2 garbage": bz2.compress(b"x")[:-3],
}


@pytest.mark.parametrize("blob", BROKEN.values(), ids=BROKEN)
def test_d09_a_broken_stream_is_an_error_and_the_next_layer_works(tmp_root: Roots, blob: bytes):
    content, layers = ContentStore(f"{tmp_root.data}/content"), OverlaySnapshotter(tmp_root.data, user=False)
    chain_id = digest_of(b"chain")
    bad = Descriptor(media_type=evil.OCI_LAYER + "+gzip", digest=content.add(blob), size=len(blob))
    begin = time.monotonic()
    with pytest.raises(HutchError):
        unpack_layer(content, bad, digest_of(b"x"), layers, chain_id, [])
    assert time.monotonic() - begin < 5
    assert os.listdir(f"{tmp_root.data}/tmp") == os.listdir(f"{tmp_root.data}/layers") == []
    good = Layer().file("a", b"x")
    blob = good.blob
    descriptor = Descriptor(media_type=good.media_type, digest=content.add(blob), size=len(blob))
    unpacked = unpack_layer(content, descriptor, good.diff_id, layers, chain_id, [])
    assert unpacked is not None
    assert unpacked.diff_id == good.diff_id
    assert unpack_layer(content, descriptor, good.diff_id, layers, chain_id, []) is None


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+zip",
        "text/html",
    ],
)
def test_other_media_types_are_refused(tmp_root: Roots, media_type: str):
    content, layers = ContentStore(f"{tmp_root.data}/content"), OverlaySnapshotter(tmp_root.data, user=False)
    descriptor = Descriptor(media_type=media_type, digest=content.add(b"x"), size=1)
    with pytest.raises(NotSupported, match="media type"):
        unpack_layer(content, descriptor, digest_of(b"x"), layers, digest_of(b"y"), [])


def test_layers_labelled_wrongly_are_read_by_their_first_bytes(tmp_root: Roots):
    content, layers = ContentStore(f"{tmp_root.data}/content"), OverlaySnapshotter(tmp_root.data, user=False)
    for number, compression in enumerate(("", "gzip", "zstd")):
        layer = Layer(compression).file(f"a{number}")
        descriptor = Descriptor(media_type=evil.OCI_LAYER, digest=content.add(layer.blob), size=len(layer.blob))
        assert unpack_layer(content, descriptor, layer.diff_id, layers, layer.diff_id, []) is not None


@pytest.mark.parametrize("size", [65_536, 65_537, 300_000])
def test_d11_long_attributes(place: Place, size: int):
    pax: dict[str | bytes, str | bytes] = {"SCHILY.xattr.user.long": b"v" * size}
    try:
        place.unpack(Layer("").file("f", pax=pax))
    except (InvalidLayer, Unavailable) as problem:
        assert "extended attribute user.long" in str(problem) or "no space left" in str(problem)
    else:
        assert len(os.getxattr(place.path("f"), "user.long")) == size == 65_536


@pytest.mark.parametrize("name", ["user." + "n" * 251, "user.", "nonsense", "user.a/b"])
def test_d11_odd_names_of_attributes(place: Place, name: str):
    try:
        place.unpack(Layer("").file("f", pax={f"SCHILY.xattr.{name}": "v"}))
    except InvalidLayer as problem:
        assert "extended attribute" in str(problem)
    else:
        assert os.listxattr(place.path("f")) in ([], [name])


@pytest.mark.parametrize("value", [b"\0" * 4, b"\xff" * 20, b"\1\0\0\2" + b"\0" * 100])
def test_d11_a_malformed_capability_is_a_clear_error(place: Place, value: bytes):
    with pytest.raises(InvalidLayer, match=r"f: extended attribute security\.capability: invalid argument"):
        place.unpack(Layer("").file("f", pax={"SCHILY.xattr.security.capability": value}))


def test_a_full_disk_is_said_and_nothing_stays(tmp_root: Roots):
    small = f"{tmp_root.base}/small"
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", small], check=True)
    try:
        content, layers = ContentStore(f"{tmp_root.data}/content"), OverlaySnapshotter(small, user=False)
        layer = Layer().file("big", os.urandom(6 * MIB))
        descriptor = Descriptor(media_type=layer.media_type, digest=content.add(layer.blob), size=len(layer.blob))
        with pytest.raises(Unavailable, match="unpack big: no space left on device"):
            unpack_layer(content, descriptor, layer.diff_id, layers, layer.diff_id, [])
        assert os.listdir(f"{small}/tmp") == os.listdir(f"{small}/layers") == []
    finally:
        subprocess.run(["umount", small], check=True)


def child_of(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return int(file.read().split()[0])


@pytest.fixture
def running(place: Place) -> Iterator[tuple[int, list[BaseException]]]:
    """The pid of a child that waits for more of its layer, and what became of it."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, evil.header("waiting", size=1 << 20))
    problems: list[BaseException] = []
    known = set(_children())

    def unpack() -> None:
        try:
            unpack_into(place.directory, read_fd)
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=unpack)
    thread.start()
    deadline = time.monotonic() + 10
    while not os.path.exists(place.path("waiting")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (pid,) = set(_children()) - known
    yield pid, problems
    os.close(write_fd)
    thread.join()
    os.close(read_fd)


def _children() -> list[int]:
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += map(int, file.read().split())
    return found


def test_d01_the_child_sees_no_network_no_files_and_has_few_powers(running: tuple[int, list[BaseException]]):
    pid, _ = running
    for kind in ("mnt", "net", "ipc"):
        assert os.stat(f"/proc/{pid}/ns/{kind}").st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino
    assert os.listdir(f"/proc/{pid}/root/") == []
    with open(f"/proc/{pid}/mountinfo") as file:
        assert len(file.read().splitlines()) == 1
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) & ~0x8820_001F == 0
    with open(f"/proc/{pid}/net/dev") as file:
        assert [line.split(":")[0].strip() for line in file.read().splitlines()[2:]] == ["lo"]
    with open(f"/proc/{pid}/environ", "rb") as raw:
        assert raw.read() == b"LC_ALL=C.UTF-8\0"
    limits = subprocess.run(
        ["prlimit", f"--pid={pid}", "--raw", "--noheadings"], capture_output=True, text=True, check=True
    )
    rows = {line.split()[0]: line.split() for line in limits.stdout.splitlines()}
    assert "0" in rows["CORE"]
    assert str(1 << 30) in rows["DATA"]


def test_a_child_that_is_killed_is_an_error(running: tuple[int, list[BaseException]], place: Place):
    pid, problems = running
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not problems:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "killed by signal 9 without a report" in str(problems[0])


def test_a_layer_may_come_through_a_pipe(place: Place):
    data = gzip.compress(Layer("").file("a", os.urandom(3 * MIB)).file("b", b"b").tar)
    read_fd, write_fd = os.pipe()

    def feed() -> None:
        stream = io.BytesIO(data)
        while chunk := stream.read(7001):
            os.write(write_fd, chunk)
        os.close(write_fd)

    thread = threading.Thread(target=feed)
    thread.start()
    unpacked = unpack_into(place.directory, read_fd)
    thread.join()
    os.close(read_fd)
    assert unpacked.compressed_size == len(data)
    assert place.read("b") == b"b"


def test_the_fallback_without_isal_reads_the_same():
    from hutch.image import decompress

    data = Layer("").file("a", os.urandom(300_000)).file("z", bytes(3 * MIB)).tar
    inner = decompress._Zlib()
    out, pending = b"", gzip.compress(data)
    while not inner.eof:
        out += inner.decompress(pending, 10_000)
        pending = b""
    assert out == data
