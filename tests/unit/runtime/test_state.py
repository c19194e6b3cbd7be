"""hutch.runtime.state: ids, records, the directory and its lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import AlreadyExists, ContainerNotFound, Internal, InvalidArgument, InvalidState
from hutch.runtime import state
from hutch.runtime.container import Container, remove_remains

SPEC = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "annotations": {"a": "b"}}


def reserve(root: Path, container_id: str = "c1") -> Container:
    return Container.reserve(str(root / "run"), container_id, spec=SPEC, bundle="/bundle")


@pytest.mark.parametrize("name", ["a", "A.b_c-d", "0" * 128])
def test_ids(name: str) -> None:
    assert state.check_id(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/a", ".a", "-a", "_a", "a b", "a\n", "a\0", "é", "٣", "a" * 129, "a" * 10240],
)
def test_h10_a22_an_id_can_only_be_a_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="invalid container id"):
        state.check_id(name)
    with pytest.raises(InvalidArgument):
        Container.load(str(tmp_path), name)
    with pytest.raises(InvalidArgument):
        remove_remains(str(tmp_path), name)


@given(st.text(max_size=200))
def test_h10_any_id_that_passes_stays_inside(name: str) -> None:
    try:
        state.check_id(name)
    except InvalidArgument:
        return
    assert os.path.dirname(os.path.normpath(f"/run/hutch/{name}")) == "/run/hutch"
    assert name.isascii()
    assert not name.startswith(("-", "."))


def test_a_container_is_creating_until_its_init_is_known(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    container = reserve(tmp_path)
    assert os.stat(root).st_mode & 0o777 == os.stat(container.directory.path).st_mode & 0o777 == 0o700
    assert Container.load(root, "c1").status() == "creating"
    with pytest.raises(AlreadyExists, match="container with given ID already exists"):
        reserve(tmp_path)

    child = subprocess.Popen(["sleep", "60"])
    try:
        os.mkfifo(f"{container.directory.path}/exec.fifo")
        container.record_init(child.pid)
        found = Container.load(root, "c1")
        assert found.state() == {
            "ociVersion": "1.2.0",
            "id": "c1",
            "status": "created",
            "pid": child.pid,
            "bundle": "/bundle",
            "annotations": {"a": "b"},
        }
        assert found.record.rootfs == "/bundle/rootfs"
        assert found.config == SPEC
        os.unlink(f"{container.directory.path}/exec.fifo")
        assert found.status() == "running"
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert found.status() == "stopped"  # still a zombie
        assert "pid" not in found.state()
    finally:
        child.kill()
        child.wait()
    assert found.status() == "stopped"
    with pytest.raises(InvalidState, match="container not running"):
        found.kill(15)


def test_a_container_whose_creator_died_has_stopped(tmp_path: Path) -> None:
    program = (
        "import os, sys; from hutch.runtime.container import Container;"
        f"Container.reserve({str(tmp_path / 'run')!r}, 'c1', spec={SPEC!r}, bundle='/b'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    found = Container.load(str(tmp_path / "run"), "c1")
    assert found.status() == "stopped"
    found.delete()
    with pytest.raises(ContainerNotFound):
        Container.load(str(tmp_path / "run"), "c1")


def test_x7_another_process_with_the_same_pid_is_not_the_container_s(tmp_path: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        container = reserve(tmp_path)
        container.record_init(innocent.pid)
        assert container.status() == "running"
        container.record.start_time -= 1
        container.directory.save_record(container.record)
        found = Container.load(str(tmp_path / "run"), "c1")
        assert found.status() == "stopped"
        with pytest.raises(InvalidState):
            found.kill(9)
        found.delete(force=True)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_x6_a_record_from_before_the_boot_describes_a_stopped_container(tmp_path: Path) -> None:
    container = reserve(tmp_path)
    container.record_init(os.getpid())
    assert container.status() == "running"
    container.record.boot_id = "00000000-0000-0000-0000-000000000000"
    assert container.status() == "stopped"


def test_h09_a_shorter_record_leaves_no_tail_and_no_temporary_file(tmp_path: Path) -> None:
    container = reserve(tmp_path)
    path = Path(container.directory.path)
    container.record.annotations = {"long": "x" * 10_000}
    container.directory.save_record(container.record)
    container.record.annotations = {}
    container.directory.save_record(container.record)
    assert json.loads((path / "state.json").read_text())["annotations"] == {}
    assert sorted(os.listdir(path)) == ["config.json", "state.json"]


def test_h09_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    container = reserve(tmp_path)
    path = Path(container.directory.path)
    before = (path / "config.json").read_bytes()
    with pytest.raises(TypeError):
        container.directory.save("config.json", {"a": object()})
    assert (path / "config.json").read_bytes() == before
    assert sorted(os.listdir(path)) == ["config.json", "state.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"id": "c1"}'])
def test_x9_a_torn_record_is_named_and_can_be_removed(tmp_path: Path, content: str) -> None:
    container = reserve(tmp_path)
    Path(container.directory.path, "state.json").write_text(content)
    container.close()
    with pytest.raises(Internal, match=r"c1/state\.json"):
        Container.load(str(tmp_path / "run"), "c1")
    assert remove_remains(str(tmp_path / "run"), "c1")
    assert not remove_remains(str(tmp_path / "run"), "c1")


def test_a22_a_record_of_another_container_is_refused(tmp_path: Path) -> None:
    container = reserve(tmp_path)
    container.record.id = "c2"
    container.directory.save_record(container.record)
    with pytest.raises(Internal, match="describes container 'c2'"):
        Container.load(str(tmp_path / "run"), "c1")


def test_h08_a_link_planted_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").write_text("here")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "c1").symlink_to(target)
    with pytest.raises(AlreadyExists):
        reserve(tmp_path)
    with pytest.raises(ContainerNotFound):
        Container.load(str(tmp_path / "run"), "c1")
    assert not remove_remains(str(tmp_path / "run"), "c1")
    assert (target / "precious").read_text() == "here"


def test_ids_lists_only_containers(tmp_path: Path) -> None:
    assert list(state.container_ids(str(tmp_path / "absent"))) == []
    for name in ("b", "a", ".tmp"):
        (tmp_path / name).mkdir()
    assert list(state.container_ids(str(tmp_path))) == ["a", "b"]


def test_now_is_rfc_3339_with_nanoseconds() -> None:
    text = state.now()
    assert len(text) == len("2026-01-02T03:04:05.678901234Z")
    assert text[10] == "T"
    assert text[-1] == "Z"
