"""The content store: resumable, verified, one writer for each blob; leases and collection."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from hutch.errors import BlobNotFound, DigestMismatch, Internal, InvalidArgument
from hutch.image import content as content_module
from hutch.image import digest as digests
from hutch.image.content import ContentStore, write_file
from hutch.image.lease import Lease, leased, store_lock

DATA = os.urandom(1 << 16) * 5
DIGEST = digests.of(DATA)


@pytest.fixture
def store(tmp_path):
    return ContentStore(str(tmp_path / "content"))


def put(store, data=DATA):
    return store.add(data)


def test_the_layout_is_an_oci_layout_that_only_its_owner_enters(store):
    with open(f"{store.root}/oci-layout") as file:
        assert file.read() == '{"imageLayoutVersion":"1.0.0"}'
    for directory in (store.root, f"{store.root}/blobs", f"{store.root}/ingest"):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700


@pytest.mark.requires("root")
def test_h3_nobody_else_can_reach_a_blob_even_if_the_directory_was_opened(store):
    os.chmod(store.root, 0o755)
    ContentStore(store.root)
    put(store)
    code = f"import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.open({store.path(DIGEST)!r}, 0)"
    # A directory of pytest's own is closed to others as well; open those up so that only ours is in the way.
    path = os.path.dirname(store.root)
    while path != "/":
        if stat.S_IMODE(os.stat(path).st_mode) & 0o055 != 0o055:
            os.chmod(path, 0o755)
        path = os.path.dirname(path)
    done = subprocess.run(["/usr/bin/python3", "-I", "-c", code], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr


def test_a_blob_appears_when_it_is_whole(store):
    with store.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(DATA[:1000])
        assert not store.has(DIGEST)
        ingest.write(memoryview(DATA)[1000:])
        ingest.commit()
    assert store.read(DIGEST, len(DATA)) == DATA
    assert list(store.digests()) == [DIGEST]
    assert os.listdir(f"{store.root}/ingest") == []
    assert store.ingest(DIGEST, len(DATA)).present


def test_an_empty_blob_and_sha512(store):
    assert store.read(store.add(b""), 0) == b""
    digest = digests.of(DATA, "sha512")
    store.add(DATA, digest)
    assert store.path(digest).endswith(f"blobs/sha512/{digest[7:]}")
    assert store.read(digest, len(DATA)) == DATA


def test_what_was_written_is_gone_on_from_by_another_process(store):
    code = (
        "import sys, os; from hutch.image.content import ContentStore\n"
        "i = ContentStore(sys.argv[1]).ingest(sys.argv[2], int(sys.argv[3]))\n"
        "i.write(sys.stdin.buffer.read()); os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", code, store.root, DIGEST, str(len(DATA))]
    assert subprocess.run(argv, input=DATA[:70000], check=False).returncode == -9
    with store.ingest(DIGEST, len(DATA)) as ingest:
        assert ingest.offset == 70000
        ingest.write(DATA[70000:])
        ingest.commit()
    assert store.has(DIGEST)


@pytest.mark.parametrize(
    "data", [DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA[:-1], b"", DATA + b"x"], ids=["bit", "short", "empty", "long"]
)
def test_g5_what_is_not_the_blob_leaves_nothing(store, data):
    with pytest.raises(DigestMismatch), store.ingest(DIGEST, len(DATA)) as ingest:
        ingest.write(data)
        ingest.commit()
    assert list(store.digests()) == []
    assert os.listdir(f"{store.root}/ingest") == []


def test_g5_a_wrong_size_promised_is_a_mismatch_even_with_the_right_digest(store):
    with pytest.raises(DigestMismatch), store.ingest(DIGEST, len(DATA) + 1) as ingest:
        ingest.write(DATA)
        ingest.commit()


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "A" * 64, "../x", "", "sha256:" + "0" * 64 + "/.."])
def test_g4_no_path_is_made_of_what_is_no_digest(store, digest):
    for use in (store.path, store.partial_path, store.has, store.open, store.remove, lambda d: store.ingest(d, 1)):
        with pytest.raises(InvalidArgument):
            use(digest)


def test_x18_one_writes_and_the_others_wait_and_have_it(store):
    writers, present = [], []

    def work():
        with store.ingest(DIGEST, len(DATA), wait=lambda: time.sleep(0.002)) as ingest:
            if ingest.present:
                present.append(1)
                return
            writers.append(1)
            ingest.write(DATA[:500])
            time.sleep(0.05)
            ingest.write(DATA[500:])
            ingest.commit()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(writers), len(present)) == (1, 7)


def test_who_waits_can_give_up(store):
    def give_up():
        raise InterruptedError

    with store.ingest(DIGEST, len(DATA)), pytest.raises(InterruptedError):
        store.ingest(DIGEST, len(DATA), wait=give_up)
    assert os.listdir(f"{store.root}/ingest") == []


def test_who_waits_goes_on_where_the_first_one_failed(store):
    first = store.ingest(DIGEST, len(DATA))
    first.write(DATA[:1234])
    offsets = []

    def wait_then_finish():
        with store.ingest(DIGEST, len(DATA)) as ingest:
            offsets.append(ingest.offset)

    thread = threading.Thread(target=wait_then_finish)
    thread.start()
    time.sleep(0.05)
    first.close()
    thread.join()
    assert offsets == [1234]


@pytest.mark.requires("root")
def test_x10_a_full_disk_is_told_and_the_next_attempt_works(store, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], check=True)
    try:
        small = ContentStore(str(disk / "content"))
        with pytest.raises(OSError) as caught, small.ingest(DIGEST, len(DATA)) as ingest:
            ingest.write(DATA)
        assert caught.value.errno == errno.ENOSPC
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        with small.ingest(DIGEST, len(DATA)) as ingest:
            assert 0 < ingest.offset < len(DATA)
            ingest.write(DATA[ingest.offset :])
            ingest.commit()
        assert small.read(DIGEST, len(DATA)) == DATA
    finally:
        subprocess.run(["umount", disk], check=True)


def test_reads_are_bounded_and_checked(store):
    put(store)
    with pytest.raises(DigestMismatch):
        store.read(DIGEST, len(DATA) - 1)
    os.chmod(store.path(DIGEST), 0o600)
    with open(store.path(DIGEST), "r+b") as file:
        file.write(b"\0\0\0\0\0\0\0\0")
    with pytest.raises(DigestMismatch):
        store.read(DIGEST, len(DATA))
    assert store.remove(DIGEST) == len(DATA)
    with pytest.raises(BlobNotFound):
        store.read(DIGEST, 1)


@pytest.mark.parametrize("make", [lambda p: os.symlink("/etc/passwd", p), os.mkfifo, os.mkdir])
def test_what_stands_in_a_blobs_place_is_not_opened(store, make):
    make(store.path(DIGEST))
    with pytest.raises(Internal, match="not a regular file"):
        store.open(DIGEST)


def test_a_file_is_replaced_or_left(tmp_path, monkeypatch):
    path = str(tmp_path / "file")
    write_file(path, b"old")
    monkeypatch.setattr(content_module.os, "rename", lambda *_: (_ for _ in ()).throw(OSError(5, "i/o error")))
    with pytest.raises(OSError):
        write_file(path, b"new")
    with open(path, "rb") as file:
        assert file.read() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_lease_counts_while_its_process_lives(store):
    code = (
        "import sys; from hutch.image.lease import Lease\n"
        "l = Lease(sys.argv[1]); l.add(['a', 'b']); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with Lease(store.root) as mine:
        mine.add(["c"])
        with store_lock(store.root):
            assert leased(store.root) == {"a", "b", "c"}
        other.kill()
        other.communicate()
        with store_lock(store.root):
            assert leased(store.root) == {"c"}
    with store_lock(store.root):
        assert leased(store.root) == set()
    assert os.listdir(f"{store.root}/leases") == []


def test_a_claim_is_held_by_one(store):
    order = []

    def work(name):
        with store.claim("unpack-x", wait=lambda: time.sleep(0.001)):
            order.append(f"{name} in")
            time.sleep(0.01)
            order.append(f"{name} out")

    threads = [threading.Thread(target=work, args=(n,)) for n in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(order[i].split()[0] == order[i + 1].split()[0] for i in range(0, 8, 2))
    assert os.listdir(f"{store.root}/ingest") == []
