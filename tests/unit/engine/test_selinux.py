"""SELinux labels: computed from what a policy says, and written to files. No policy is needed for either."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hutch.engine import selinux
from hutch.errors import InvalidArgument, NotSupported
from tests.support.host import requires

ID = "0123456789abcdef" * 4
CONTEXTS = selinux.Contexts(process="system_u:system_r:container_t:s0", file="system_u:object_r:container_file_t:s0")


def test_nothing_asked_for_is_no_label() -> None:
    assert selinux.labels((), ID, CONTEXTS) == ("", "")
    assert selinux.labels(("disable",), ID, None) == ("", "")
    assert selinux.labels(("type:x", "disable"), ID, CONTEXTS) == ("", "")


def test_what_is_not_said_is_the_policys_with_categories_of_the_containers_own() -> None:
    process, files = selinux.labels(("type:spc_t",), ID, CONTEXTS)
    level = process.split(":", 3)[3]
    assert process == f"system_u:system_r:spc_t:{level}"
    assert files == f"system_u:object_r:container_file_t:{level}"
    first, second = (int(part[1:]) for part in level.removeprefix("s0:").split(","))
    assert 0 <= first < second < 1024
    assert selinux.labels(("type:spc_t",), ID, CONTEXTS)[0] == process
    others = {selinux.labels(("type:x",), f"{number:016x}" * 4, CONTEXTS)[0] for number in range(1000)}
    assert len(others) == 1000


def test_each_part_goes_where_docker_and_podman_put_it() -> None:
    asked = ("user:u", "role:r", "type:t", "level:s0:c1,c2", "filetype:f")
    assert selinux.labels(asked, ID, CONTEXTS) == ("u:r:t:s0:c1,c2", "u:object_r:f:s0:c1,c2")


def test_a_policy_without_levels() -> None:
    plain = selinux.Contexts(process="u:r:container_t", file="u:object_r:file_t")
    assert selinux.labels(("type:x",), ID, plain) == ("u:r:x", "u:object_r:file_t")


@pytest.mark.parametrize("option", ["type", "type:", "kind:x", "type:a b", "level:s0\n", 'type:"x"', "nested:x"])
def test_what_is_no_label_option_is_refused(option: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid --security-opt: label="):
        selinux.labels((option,), ID, None)


def test_c15_a_label_that_cannot_be_had_is_an_error() -> None:
    with pytest.raises(NotSupported, match="SELinux is not enabled"):
        selinux.labels(("type:x",), ID, None)
    with pytest.raises(NotSupported, match="no contexts for containers"):
        selinux.labels(("type:x",), ID, selinux.Contexts())
    with pytest.raises(NotSupported, match="label=nested"):
        selinux.labels(("nested",), ID, CONTEXTS)


def test_the_labels_of_files() -> None:
    shared = selinux.file_label((), ID, CONTEXTS, shared=True)
    assert shared == "system_u:object_r:container_file_t:s0"
    own = selinux.file_label((), ID, CONTEXTS, shared=False)
    assert own == selinux.labels(("type:x",), ID, CONTEXTS)[1]
    assert selinux.file_label(("level:s0:c3,c4",), ID, CONTEXTS, shared=False).endswith(":s0:c3,c4")
    with pytest.raises(NotSupported, match="no contexts"):
        selinux.file_label((), ID, selinux.Contexts(), shared=True)


def test_contexts_are_read_from_the_configured_policy(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("# comment\nSELINUX=enforcing\nSELINUXTYPE=mine\n")
    assert selinux.host_contexts(f"{tmp_path}/config") == selinux.Contexts()
    folder = tmp_path / "mine" / "contexts"
    folder.mkdir(parents=True)
    (folder / "lxc_contexts").write_text('process = "a:b:c:s0"\ncontent = "x"\nfile = "d:e:f:s0"\n')
    assert selinux.host_contexts(f"{tmp_path}/config") == selinux.Contexts(process="a:b:c:s0", file="d:e:f:s0")
    (tmp_path / "config").write_text("SELINUXTYPE=../../x\n")
    assert selinux.host_contexts(f"{tmp_path}/config") == selinux.Contexts()


# --- writing: without SELinux the attribute is one like any other, which root may write -------------------------


def label_of(path: Path) -> bytes:
    try:
        return os.getxattr(path, "security.selinux", follow_symlinks=False)
    except OSError:
        return b""


@requires("root")
def test_a_tree_is_labelled_links_and_special_files_as_well(tmp_path: Path) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "a" / "b").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").touch()
    (top / "a" / "file").touch()
    os.mkfifo(top / "a" / "fifo")
    os.mknod(top / "a" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (top / "a" / "out").symlink_to(outside)
    (top / "a" / "loop").symlink_to(".")
    selinux.relabel(str(top), "u:r:t:s0")
    labelled = [top, *top.rglob("*")]
    assert len(labelled) == 8
    assert {label_of(path) for path in labelled} == {b"u:r:t:s0\0"}
    assert {label_of(path) for path in (outside, outside / "file", Path("/dev/null"))} <= {b""}


@requires("root")
def test_a_single_file_and_a_link_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "inner").touch()
    (tmp_path / "link").symlink_to("real")
    selinux.relabel(f"{tmp_path}/file", "u:r:t:s0")
    selinux.relabel(f"{tmp_path}/link", "u:r:t:s0")
    assert {label_of(tmp_path / name) for name in ("file", "real", "real/inner")} == {b"u:r:t:s0\0"}
    assert label_of(tmp_path / "link") == b""


@requires("root")
@pytest.mark.parametrize("place", ["/", "/usr", "/etc", "/home", "/bin", "/var/lib", "/usr/../etc"])
def test_the_systems_directories_keep_their_labels(place: str) -> None:
    before = label_of(Path(place))
    with pytest.raises(InvalidArgument, match="would lock the system out"):
        selinux.relabel(place, "u:r:t:s0")
    assert label_of(Path(place)) == before


@requires("root")
def test_a_link_is_no_way_around(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(InvalidArgument, match="relabelling /etc"):
        selinux.relabel(f"{tmp_path}/link", "u:r:t:s0")
