"""System containers: an init as process 1 boots, is looked into, and shuts down when it is asked to."""

from __future__ import annotations

import os
import time

import pytest

from tests.support import images
from tests.support.cli import Cli
from tests.support.host import is_cgroup2, requires
from tests.support.programs import run, wait_until
from tests.support.runner import Runner

pytestmark = [pytest.mark.host, requires("root")]

PATIENCE_S = 100  # the guest is emulated; elsewhere it takes two seconds
INITTAB = "::sysinit:/bin/echo booted\n::respawn:/bin/sleep 1000\n::shutdown:/bin/echo going down\n"


@pytest.fixture
def systemd(own_hutch: Cli, cgroup_parent: str) -> Runner:
    """Containers of a Debian with systemd and sshd."""
    return _box(own_hutch, cgroup_parent, "systemd")


def _box(cli: Cli, cgroup: str, kind: str) -> Runner:
    if not images.PREBUILT and (missing := next((p for p in ("mmdebstrap", "buildah") if not images.found(p)), "")):
        pytest.skip(f"{missing} is not installed")
    if images.PREBUILT and not any(entry.startswith(f"system-{kind}-") for entry in os.listdir(images.PREBUILT)):
        pytest.skip(f"no image of {kind} was prepared")
    told = cli("load", "--quiet", "--input", images.system(kind).path, timeout_s=PATIENCE_S).stdout
    return Runner(cli, cgroup, told.rpartition("sha256:")[2].strip()[:12])


def shell(box: Runner, name: str, script: str, status: int = 0) -> str:
    done = box.cli("exec", name, "sh", "-c", script, check=False)
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stdout


def until_running(box: Runner, name: str) -> None:
    """Until systemd says that everything is started, and nothing failed."""

    def state() -> str:
        done = box.cli("exec", name, "systemctl", "is-system-running", "--wait", check=False, timeout_s=PATIENCE_S)
        return done.stdout.strip()

    wait_until(lambda: state() not in ("", "offline"), PATIENCE_S)
    failed = shell(box, name, "systemctl --failed --no-legend --plain; systemctl list-jobs --no-legend")
    assert state() == "running", failed


def test_systemd_boots_serves_and_shuts_down(systemd, tmp_path):
    box = systemd
    box.detached(flags=("-t", "--name", "machine", "--hostname", "machine"))
    until_running(box, "machine")
    record = box.record("machine")
    assert shell(box, "machine", "cat /etc/machine-id").strip() == record.id[:32]
    told = shell(box, "machine", "tr '\\0' '\\n' < /proc/1/environ")
    assert {"container=hutch", f"container_uuid={record.id[:32]}"} <= set(told.splitlines())
    assert "tmpfs /run tmpfs rw" in shell(box, "machine", "cat /proc/mounts")
    assert shell(box, "machine", "systemd-detect-virt --container").strip() == "container-other"
    # The cgroup is its own: services have their places in it, and so has what a user makes.
    top = "/sys/fs/cgroup" if is_cgroup2() else "/sys/fs/cgroup/systemd"
    assert "ssh.service" in shell(box, "machine", f"mkdir {top}/mine && rmdir {top}/mine && ls {top}/system.slice")
    assert "ssh.service" in shell(box, "machine", "cat /proc/$(systemctl show -P MainPID ssh)/cgroup")
    # ... but no limit is, and nothing above.
    limit = f"{top}/pids.max" if is_cgroup2() else "/sys/fs/cgroup/pids/pids.max"
    shell(box, "machine", f"echo max > {limit}", status=2)
    shell(box, "machine", "systemd-run --quiet --unit=job --property=RemainAfterExit=yes touch /run/touched")
    wait_until(lambda: "active" in shell(box, "machine", "systemctl is-active job; test -e /run/touched"), PATIENCE_S)
    if images.found("ssh"):  # a client: most hosts have one, and what comes then does not need it
        said = over_ssh(box, "machine", str(tmp_path), "hostname; systemctl is-active ssh; id -u")
        assert said == "machine\nactive\n0\n"

    start = time.monotonic()
    box.cli("stop", "-t", str(PATIENCE_S), "machine", timeout_s=PATIENCE_S)
    assert is_cgroup2() or time.monotonic() - start < 9
    assert box.record("machine").exit_code == 0
    assert "Exiting container." in box.cli("logs", "machine").stdout
    # It boots again, as the same machine.
    box.cli("start", "machine")
    until_running(box, "machine")
    assert shell(box, "machine", "cat /etc/machine-id").strip() == record.id[:32]
    box.cli("rm", "-f", "machine")


def over_ssh(box: Runner, name: str, directory: str, command: str) -> str:
    """What a command says that runs through the container's sshd, reached in its network namespace."""
    key = f"{directory}/key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    shell(box, name, "mkdir -p -m 700 /root/.ssh")
    box.cli("cp", f"{key}.pub", f"{name}:/root/.ssh/authorized_keys")
    options = ["-F", "none", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={directory}/known"]
    enter = ["nsenter", "--net", "--target", str(box.record(name).pid)]
    return run([*enter, "ssh", *options, "-o", "LogLevel=ERROR", "root@127.0.0.1", command], timeout_s=60).stdout


def test_systemd_with_the_hosts_ids_and_as_told(systemd):
    box = systemd
    box.detached("/lib/systemd/systemd", flags=("--name", "plain", "--userns=host"))
    until_running(box, "plain")
    box.cli("stop", "-t", str(PATIENCE_S), "plain", timeout_s=PATIENCE_S)
    assert box.record("plain").exit_code == 0
    box.cli("rm", "plain")
    # Told that there is no init, it gives nothing; told that anything is one, it gives all of it.
    script = 'echo "$container"; grep -c " /run tmpfs" /proc/mounts; cat /etc/machine-id'
    assert box("sh", "-c", script, flags=("--systemd=false",), status=None).stdout.splitlines()[:2] == ["", "0"]
    assert box("sh", "-c", script, flags=("--systemd=always",)).stdout.splitlines()[:2] == ["hutch", "1"]
    assert box("sh", "-c", script, flags=("--systemd=always", "-e", "container=me")).stdout[:3] == "me\n"
    assert "invalid --systemd value" in box("true", flags=("--systemd=maybe",), status=125).stderr


def test_openrc_boots_and_shuts_down(own_hutch, cgroup_parent):
    box = _box(own_hutch, cgroup_parent, "openrc")
    box.detached(flags=("-t", "--name", "small"))
    wait_until(lambda: "Starting default runlevel" in box.cli("logs", "small").stdout, PATIENCE_S)
    assert "sysinit" in box.cli("exec", "small", "rc-status", "-a").stdout
    start = time.monotonic()
    box.cli("stop", "-t", "60", "small")
    assert time.monotonic() - start < 20
    # It powered off, by reboot(2), which ends a pid namespace's init with SIGINT.
    assert box.record("small").exit_code == 130
    box.cli("rm", "small")


def test_busybox_init_boots_and_shuts_down(own_hutch, cgroup_parent, busybox_image, tmp_path):
    told = own_hutch("load", "--quiet", "--input", busybox_image.path).stdout
    box = Runner(own_hutch, cgroup_parent, told.rpartition("sha256:")[2].strip()[:12])
    with open(f"{tmp_path}/inittab", "w", encoding="ascii") as file:
        file.write(INITTAB)
    flags = ("-t", "--name", "tiny", "--mount", f"type=bind,src={tmp_path}/inittab,dst=/etc/inittab,ro")
    box.detached("init", flags=flags)
    wait_until(lambda: "booted" in box.cli("logs", "tiny").stdout, PATIENCE_S)
    first = box.cli("exec", "tiny", "pidof", "sleep").stdout
    box.cli("exec", "tiny", "sh", "-c", "kill -9 $(pidof sleep)")
    wait_until(lambda: box.cli("exec", "tiny", "pidof", "sleep", check=False).stdout not in ("", first), PATIENCE_S)
    box.cli("stop", "-t", "60", "tiny", timeout_s=PATIENCE_S)
    assert "going down" in box.cli("logs", "tiny").stdout
    assert box.record("tiny").exit_code == 130
    box.cli("rm", "tiny")


def test_a05_nothing_of_the_hosts_is_in_reach(systemd):
    """What it may write to is its own cgroup; no kernel setting is, and no release agent, which the host would run."""
    box = systemd
    box.detached(flags=("--name", "machine"))
    until_running(box, "machine")
    for path in ("/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/made"):
        shell(box, "machine", f"echo x > {path}", status=2)
    assert shell(box, "machine", "find /sys/fs/cgroup -name release_agent") == ""
    assert "/.." not in shell(box, "machine", "cat /proc/1/cgroup")
    box.cli("rm", "-f", "machine")
