"""From a configuration to steps, without doing any."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hutch.errors import InvalidConfig, NotSupported
from hutch.linux import mount as kernel
from hutch.runtime.commands.spec import default_spec
from hutch.runtime.devices import steps as device_steps
from hutch.runtime.plan import make_plan
from hutch.runtime.rootfs_layers import _split_escaped
from hutch.runtime.rootfs_options import NAMES, MountOptions, mount_data
from hutch.runtime.rootfs_targets import clean


def spec(**changes: Any) -> Any:
    found: Any = default_spec(rootless=False)
    found["process"]["terminal"] = False
    return {**found, **changes}


def calls(document: Any, *, privileged: bool = True, **options: Any) -> list[tuple[str, str]]:
    plan = make_plan(document, bundle="/b", container_id="c", privileged=privileged, **options)
    return [(actor, step.describe()) for actor, step in plan.steps()]


def index(found: list[tuple[str, str]], text: str) -> int:
    return next(number for number, (_, call) in enumerate(found) if text in call)


def test_the_order_of_the_whole() -> None:
    found = calls(spec())
    order = [
        "PR_SET_DUMPABLE", "unshare(", "MS_SLAVE", "move_mount(ROOTFS)", 'fsopen("proc")', "mknodat(rootfs:/dev/null",
        "recv(parent)", "pivot_root", "/proc/kcore", "",
    ]  # fmt: skip
    places = [index(found, text) for text in order[:6]]
    assert places == sorted(places)
    assert index(found, "pivot_root") > places[-1]
    assert index(found, "move_mount(/proc/kcore)") > index(found, "pivot_root")


def test_nothing_is_joined_before_tracing_is_forbidden() -> None:
    """B2: not dumpable before the first setns or unshare."""
    document = spec()
    document["linux"]["namespaces"] = [{"type": "mount"}, {"type": "network", "path": "/proc/1/ns/net"}]
    document.pop("hostname")
    found = calls(document)
    first = min(number for number, (_, call) in enumerate(found) if call.startswith(("setns", "unshare")))
    assert index(found, "PR_SET_DUMPABLE, 0") < first


def test_a_user_namespace_comes_before_the_others_and_joins_before_it() -> None:
    document = spec()
    document["linux"]["namespaces"] = [
        {"type": "mount"}, {"type": "user"}, {"type": "uts"}, {"type": "network", "path": "/proc/1/ns/net"},
    ]  # fmt: skip
    document["linux"]["uidMappings"] = document["linux"]["gidMappings"] = [
        {"containerID": 0, "hostID": 1000, "size": 1}
    ]
    found = calls(document)
    order = ["setns(", "unshare(CLONE_NEWUSER)", "/proc/CHILD/uid_map", "setresuid(0, 0, 0)", "unshare(CLONE_NEWNS"]
    assert [index(found, text) for text in order] == sorted(index(found, text) for text in order)
    assert index(found, 'open_tree("/dev/null"') < index(found, "unshare(CLONE_NEWUSER)")


def test_an_ordinary_user_copies_nothing_before_his_namespaces() -> None:
    document = spec()
    document["mounts"].append({"destination": "/x", "type": "bind", "source": "x", "options": ["rbind"]})
    found = calls(document, privileged=False)
    assert index(found, 'open_tree("/b/x", OPEN_TREE_CLONE|AT_RECURSIVE)') > index(found, "unshare(")
    assert index(calls(document), 'open_tree("/b/x"') < index(calls(document), "unshare(")


def test_every_step_says_what_it_does() -> None:
    for actor, step in make_plan(spec(), bundle="/b", container_id="c", privileged=True).steps():
        assert actor in ("parent", "child", "init")
        assert step.title
        assert step.describe()
        assert step.shell() is None or step.shell()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"process": None}, InvalidConfig, "process: required"),
        ({"linux": {"namespaces": [], "intelRdt": {"closID": "x"}}}, NotSupported, "linux.intelRdt"),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        calls(spec(**change))


def test_a_mount_label_is_the_context_of_every_new_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    document = spec()
    document["linux"]["mountLabel"] = "u:r:t:s0:c1,c2"
    if not os.path.exists("/sys/fs/selinux/enforce"):
        with pytest.raises(NotSupported, match=r"linux.mountLabel: u:r:t:s0:c1,c2: this host has no SELinux"):
            calls(document)
    monkeypatch.setattr("hutch.runtime.credentials.require_selinux", lambda _: None)
    document["mounts"].append({"destination": "/own", "type": "tmpfs", "options": ["fscontext=u:r:own:s0"]})
    document["mounts"].append({"destination": "/bound", "type": "bind", "source": "/src", "options": ["rbind"]})
    layers = [{"destination": "/", "type": "overlay", "options": ["lowerdir=/l"]}]
    found = calls(document, root_mounts=layers)
    context = "fsconfig(context=u:r:t:s0:c1,c2)"
    labelled = {call.split('"')[1] for _, call in found if call.startswith("fsopen") and context in call}
    assert labelled == {"tmpfs", "devpts", "overlay"}
    assert context not in found[index(found, "rootfs:/own")][1]
    assert context not in found[index(found, 'open_tree("/src"')][1]


def test_commas_of_a_context_are_quoted_for_mount2() -> None:
    assert mount_data(["size=1k", "context=u:r:t:s0:c1,c2", "ro"]) == 'size=1k,context="u:r:t:s0:c1,c2",ro'
    assert mount_data(['context="u:r:t"']) == 'context="u:r:t"'


# --- mount options -----------------------------------------------------------------------------------------------


def test_a_later_option_wins() -> None:
    options = MountOptions(["ro", "rw", "nosuid", "suid", "dev", "nodev", "noatime", "relatime"])
    assert options.attr_set == kernel.MOUNT_ATTR_NODEV
    assert options.attr_clr & (kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID) == 3
    assert options.attr_clr & kernel.MOUNT_ATTR__ATIME == kernel.MOUNT_ATTR__ATIME


def test_recursive_options_are_apart() -> None:
    options = MountOptions(["rbind", "rro", "nosuid", "rslave", "private"])
    assert (options.bind, options.recursive) == (True, True)
    assert (options.rec_set, options.attr_set) == (kernel.MOUNT_ATTR_RDONLY, kernel.MOUNT_ATTR_NOSUID)
    assert options.propagation == [(kernel.MS_SLAVE, True), (kernel.MS_PRIVATE, False)]
    assert options.read_only


def test_what_the_table_does_not_know_is_the_file_systems() -> None:
    options = MountOptions(["size=64k", "mode=755", "newinstance", "sync", "defaults", "lazytime", "nolazytime"])
    assert options.data == ["size=64k", "mode=755", "newinstance"]
    assert options.super_flags == ["sync"]
    assert not options.needs_legacy()
    assert MountOptions([f"lowerdir={'x' * 300}"]).needs_legacy()
    assert MountOptions(["silent"]).needs_legacy()


@pytest.mark.parametrize("option", ["z", "Z", "relabel=shared"])
def test_relabelling_is_refused(option: str) -> None:
    with pytest.raises(InvalidConfig, match="relabelling"):
        MountOptions([option], "mounts[0].options")


def test_every_option_of_the_specifications_table_is_known() -> None:
    table = (
        "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev "
        "nodiratime noexec rdiratime noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow "
        "private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec "
        "rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave "
        "rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync "
        "tmpcopyup unbindable idmap ridmap mand"
    ).split()
    assert set(table) <= set(NAMES)
    for option in table:
        assert option not in MountOptions([option]).data, option


def test_paths_and_layers() -> None:
    assert clean("//a/./b/../c/") == "/a/c"
    assert clean("../..") == "/"
    assert _split_escaped(r"/a:/b\:c:/d\\e") == ["/a", "/b:c", "/d\\e"]


def test_a_bound_dev_is_left_alone() -> None:
    document = spec(mounts=[{"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]}])
    assert device_steps(document, bind=False, early=True) == ([], [])
