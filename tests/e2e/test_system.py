"""The store after boots, crashes and damage: recover, check, units; and what takes room: df, prune."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest

from hutch.engine.forkserver import client
from tests.support.host import requires
from tests.support.programs import run, wait_until
from tests.support.runner import Runner

pytestmark = requires("root")

MANY = 20


def root(box: Runner) -> Path:
    return Path(box.engine.root)


def state(box: Runner) -> Path:
    return Path(box.engine.state)


def status(box: Runner, name: str) -> str:
    return box.cli("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()


def alter(box: Runner, name: str, **fields: object) -> None:
    """Change a record behind everybody's back."""
    with contextlib.closing(sqlite3.connect(root(box) / "hutch.db")) as database, database:
        (text,) = database.execute("SELECT record FROM containers WHERE name = ?", [name]).fetchone()
        document = {**json.loads(text), **fields}
        database.execute("UPDATE containers SET record = ? WHERE name = ?", [json.dumps(document), name])


def reboot(box: Runner, *names: str) -> None:
    """What a reboot leaves: no process, no cgroup, records of an earlier boot, and here even a state directory."""
    for name in names:
        monitor = parent_of(box.record(name).pid)
        os.kill(monitor, signal.SIGKILL)
        os.kill(box.record(name).pid, signal.SIGKILL)
    client.end(str(state(box)))
    for name in names:
        alter(box, name, boot_id="00000000-0000-0000-0000-000000000000")
    (state(box) / "boot").write_text("00000000-0000-0000-0000-000000000000")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_x04_after_a_reboot_the_first_command_tells_the_truth_and_starts_what_is_to_run(box):
    policies = {"always": "always", "unless": "unless-stopped", "failing": "on-failure", "none": "no"}
    for name, policy in policies.items():
        box.script("sleep 1000", "--name", name, "--restart", policy)
    box.script("sleep 1000", "--name", "throwaway", "--rm")
    for name, policy in (("stopped", "unless-stopped"), ("over", "always")):
        box.script("sleep 1000", "--name", name, "--restart", policy)
        box.cli("stop", "-t", "0", name)
    box.cli(*box.argv("--name", "fresh", "--restart", "always", verb="create"), "true")
    reboot(box, *policies, "throwaway")
    box.cli("volume", "ls")  # any command will do
    wait_until(lambda: status(box, "over").startswith("running"), 10)
    assert status(box, "always").startswith("running") and status(box, "unless").startswith("running")
    assert status(box, "failing") == "exited 137" and status(box, "none") == "exited 137"
    assert "the machine was restarted" in box.record("none").error
    assert status(box, "stopped").startswith("exited") and status(box, "fresh") == "created 0"
    assert "no such container" in box.cli.fails("container", "inspect", "throwaway")
    assert (state(box) / "boot").read_text() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert box.cli("system", "check").stdout == "no problems found\n"
    box.cli("rm", "-f", *policies, "stopped", "over", "fresh")


def test_x06_only_one_of_many_first_commands_recovers(box):
    box.script("sleep 1000", "--name", "one", "--restart", "always")
    reboot(box, "one")
    argv = [*box.cli.words, "ps", "-q"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(argv, env=box.cli.env, **pipes) for _ in range(8)]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, b"")
    wait_until(lambda: status(box, "one").startswith("running"), 10)
    starts = box.cli("events", "--since", "1h", "--until", "0s", "-f", "event=start").stdout.splitlines()
    assert len(starts) == 2  # the user's, and one
    box.cli("rm", "-f", "one")


def test_recover_after_a_crash_in_the_same_boot(box):
    box.script("sleep 1000", "--name", "kept", "--restart", "unless-stopped")
    box.script("sleep 1000", "--name", "lost")
    for name in ("kept", "lost"):
        os.kill(parent_of(box.record(name).pid), signal.SIGKILL)
    said = box.cli("system", "recover").stdout
    assert "lost: had ended" in said and "kept: started" in said
    wait_until(lambda: status(box, "kept").startswith("running"), 10)
    assert status(box, "lost") == "exited 137"
    assert box.cli("system", "recover").stdout == ""
    box.cli("rm", "-f", "kept", "lost")


def mended(box: Runner, text: str) -> str:
    """Check finds `text` and nothing else; repair mends it; what it said it did."""
    found = box.cli("system", "check", check=False)
    assert found.returncode == 1, found.stdout
    assert text in found.stdout and "1 problem found" in found.stdout, found.stdout
    done = box.cli("system", "check", "--repair").stdout
    assert "1 of 1 problems mended" in done, done
    assert box.cli("system", "check").stdout == "no problems found\n"
    return done


def test_x09_a_row_without_a_directory(box):
    identifier = box.cli(*box.argv("--name", "box", verb="create"), "true").stdout.strip()
    run(["rm", "-r", str(root(box) / "containers" / identifier)])
    found = box.cli("system", "check", check=False)
    assert (found.returncode, "container box: its directory is gone" in found.stdout) == (1, True)
    box.cli("system", "check", "--repair", check=False)
    box.cli("rm", "box")
    assert box.cli("system", "check").stdout == "no problems found\n"


def test_x09_a_directory_without_a_row(box):
    identifier = box.cli(*box.argv("--name", "box", verb="create"), "sleep", "7").stdout.strip()
    with contextlib.closing(sqlite3.connect(root(box) / "hutch.db")) as database, database:
        database.execute("DELETE FROM containers")
    done = box.cli("system", "check", "--repair", check=False).stdout
    assert f"container {identifier[:12]}: a directory without a record" in done and "entered it as" in done
    assert box.cli("inspect", "-f", "{{.Path}} {{.State.Status}}", identifier).stdout == "sleep dead\n"
    box.cli("rm", identifier)
    assert box.cli("system", "check").stdout == "no problems found\n"


@pytest.mark.parametrize("damage", ["{", '{"id": 3}', ""])
def test_x09_a_damaged_record_is_named_and_can_be_removed(box, damage):
    box.cli(*box.argv("--name", "box", verb="create"), "true")
    with contextlib.closing(sqlite3.connect(root(box) / "hutch.db")) as database, database:
        database.execute("UPDATE containers SET record = ?", [damage])
    assert "box" in box.cli("ps", "-a").stdout
    found = box.cli("system", "check", check=False)
    assert (found.returncode, "container box: " in found.stdout) == (1, True)
    assert "not mended" in box.cli("system", "check", "--repair", check=False).stdout
    box.cli("rm", "box")
    assert box.cli("system", "check").stdout == "no problems found\n"


def test_x09_a_damaged_config_is_named(box):
    identifier = box.cli(*box.argv("--name", "box", verb="create"), "true").stdout.strip()
    (root(box) / "containers" / identifier / "config.json").write_text("{")
    found = box.cli("system", "check", check=False)
    assert found.returncode == 1 and "container box: " in found.stdout and "config.json" in found.stdout
    assert "hutch rm box" in found.stdout
    assert box.cli("inspect", "-f", "{{.Name}}", "box").stdout == "/box\n"
    assert box.cli.fails("start", "box")
    box.cli("rm", "box")


def test_x09_a_store_that_is_no_database_is_set_aside(box):
    identifier = box.cli(*box.argv("--name", "box", verb="create"), "true").stdout.strip()
    for suffix in ("-wal", "-shm"):
        (root(box) / f"hutch.db{suffix}").unlink(missing_ok=True)
    (root(box) / "hutch.db").write_bytes(b"garbage" * 4096)
    assert "hutch system check" in box.cli.fails("ps")
    done = box.cli("system", "check", "--repair", check=False).stdout
    assert "the damaged one is" in done and identifier[:12] in done
    assert (root(box) / "damaged").is_dir()
    box.cli("rm", identifier)
    assert box.cli("system", "check").stdout == "no problems found\n"


def test_x09_a_damaged_page_costs_only_its_rows(box):
    for number in range(MANY):
        box.cli(*box.argv("--name", f"box{number}", verb="create"), "true")
    with contextlib.closing(sqlite3.connect(root(box) / "hutch.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page_size = database.execute("PRAGMA page_size").fetchone()[0]
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    file = root(box) / "hutch.db"
    data = bytearray(file.read_bytes())
    middle = (pages // 2) * page_size
    data[middle : middle + page_size] = b"\xff" * page_size
    file.write_bytes(data)
    for suffix in ("-wal", "-shm"):
        (root(box) / f"hutch.db{suffix}").unlink(missing_ok=True)
    found = box.cli("system", "check", check=False)
    assert (found.returncode, found.stdout.startswith("hutch.db: ")) == (1, True), found.stdout
    done = box.cli("system", "check", "--repair", check=False).stdout
    assert "rows that can be read into a new one" in done
    ids = box.cli("ps", "-aq", "--no-trunc").stdout.split()
    assert len(ids) == MANY  # from rows, or from the directories that are left
    box.cli("rm", *ids)
    assert box.cli("system", "check").stdout == "no problems found\n"


def test_x09_layers_and_blobs(box):
    layer = next((root(box) / "layers").iterdir())
    half = layer.with_name("sha256-" + "7" * 64)
    (half / "diff").mkdir(parents=True)
    assert "not complete" in mended(box, f"layer sha256:{'7' * 64}: not complete")
    assert not half.exists()
    blob = next(path for path in (root(box) / "content" / "blobs" / "sha256").iterdir() if path.stat().st_size > 10_000)
    os.chmod(blob, 0o600)
    with open(blob, "r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    found = box.cli("system", "check", check=False).stdout
    assert f"blob sha256:{blob.name}: its content has another digest" in found
    box.cli("system", "check", "--repair", check=False)
    box.cli("pull", "-q", box.image)
    assert box.cli("system", "check").stdout == "no problems found\n"


def test_x09_a_lost_list_of_images_is_made_again(box):
    before = box.cli("images", "-q", "--no-trunc").stdout.split()
    (root(box) / "content" / "index.json").write_text('{"manifests": ')
    assert "listed the 1 images that are there" in mended(box, "content/index.json: broken JSON")
    assert box.cli("images", "-q", "--no-trunc").stdout.split() == before
    box.cli("tag", before[0], box.image)
    assert box("echo", "whole").stdout == "whole\n"


def test_x09_a_missing_layer(box):
    box.cli(*box.argv("--name", "box", verb="create"), "true")
    run(["rm", "-r", str(next((root(box) / "layers").iterdir()))])
    found = box.cli("system", "check", check=False).stdout
    assert "layer sha256:" in found and "is not unpacked" in found and "container box: layer" in found
    assert box.cli.fails("start", "box")
    box.cli("pull", "-q", box.image)
    assert box.cli("system", "check").stdout == "no problems found\n"
    box.cli("start", "box")
    box.cli("wait", "box")
    box.cli("rm", "box")


FILES = (
    "containers/{id}/config.json containers/{id}/root.json containers/{id}/mounts.json content/index.json "
    "content/oci-layout layers/*/layer.json volumes/data/volume.json hutch.db"
).split()


@pytest.mark.parametrize("name", FILES)
def test_x09_whatever_file_is_damaged_check_names_it_and_the_rest_can_be_removed(box, name):
    identifier = box.cli(*box.argv("--name", "box", "-v", "data:/data", verb="create"), "true").stdout.strip()
    (path,) = root(box).glob(name.format(id=identifier))
    if name == "hutch.db":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for damage in (b"", b"{", b"\0" * 100):
        path.write_bytes(damage)
        done = box.cli("system", "check", check=False)
        assert (done.returncode, done.stderr) == (1, ""), damage
    box.cli("system", "check", "--repair", check=False)
    for argv in (["ps", "-a"], ["system", "df"], ["inspect", "box"]):
        assert "internal error" not in box.cli(*argv, check=False).stderr, argv
    for container in box.cli("ps", "-aq").stdout.split():
        box.cli("rm", container)
    assert box.cli("ps", "-aq").stdout == ""


def test_x09_volumes(box):
    box.cli("volume", "create", "data")
    place = root(box) / "volumes" / "data"
    (place / "_data" / "precious").write_text("mine")
    (place / "volume.json").write_text("{")
    assert "wrote a new record" in mended(box, "volume data: volume.json is damaged")
    assert (place / "_data" / "precious").read_text() == "mine"


def test_x09_leftovers_of_nobody(box):
    nobody = "ab" * 32
    monitors = state(box) / "monitors"
    monitors.mkdir(exist_ok=True)
    folder_fd = os.open(monitors, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(f"/proc/self/fd/{folder_fd}/{nobody}")  # its whole path is too long
    os.close(folder_fd)
    assert "removed it" in mended(box, f"socket {monitors / nobody}: nobody listens")
    (root(box) / "ids").mkdir(exist_ok=True)
    os.symlink(nobody, root(box) / "ids" / "65536")
    mended(box, "id range 65536: of container abababababab, which is gone")
    empty = root(box) / "snapshots" / nobody
    (empty / "upper" / "etc").mkdir(parents=True)
    mended(box, "snapshot abababababab: of no container")
    assert not (root(box) / "damaged").exists()
    (empty / "upper").mkdir(parents=True)
    (empty / "upper" / "precious").write_text("mine")
    assert "moved it to" in mended(box, "snapshot abababababab: of no container")
    assert [path.read_text() for path in (root(box) / "damaged").glob("*/upper/precious")] == ["mine"]


def test_check_leaves_what_lives_alone(box):
    box.script("sleep 1000", "--name", "up", "-v", "data:/data", "--health-cmd", "true")
    box.cli("exec", "-d", "up", "sleep", "100")
    box.cli(*box.argv("--name", "new", verb="create"), "true")
    assert box.cli("system", "check", "--repair").stdout == "no problems found\n"
    assert status(box, "up").startswith("running")
    box.cli("rm", "-f", "up", "new")


def test_check_takes_nothing_in_motion_for_damage(box):
    churn = "for i in 1 2 3 4 5 6 7 8; do {} || exit 1; done".format(
        " ".join([*box.cli.words, *box.argv("--rm"), "true"])
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    running = [subprocess.Popen(["sh", "-c", churn], env=box.cli.env, **pipes) for _ in range(3)]
    while any(process.poll() is None for process in running):
        assert box.cli("system", "check", "--repair").stdout == "no problems found\n"
    for process in running:
        said, _ = process.communicate()
        assert (process.returncode, said) == (0, b"")


def test_df_and_prune(box):
    box.script("sleep 1000", "--name", "up", "-v", "named:/data")
    box.cli(*box.argv("--name", "over", "-v", "/anonymous"), "sh", "-c", "head -c 3000000 /dev/zero > /big")
    rows = [json.loads(line) for line in box.cli("system", "df", "--format", "json").stdout.splitlines()]
    by_type = {row["Type"]: row for row in rows}
    assert by_type["Images"]["TotalCount"] == by_type["Images"]["Active"] == "1"
    assert (by_type["Containers"]["TotalCount"], by_type["Containers"]["Active"]) == ("2", "1")
    assert by_type["Containers"]["Reclaimable"].startswith("3.0")
    assert by_type["Local Volumes"]["Active"] == "2"
    details = json.loads(box.cli("system", "df", "-v", "--format", "json").stdout)
    assert {row["Names"] for row in details["Containers"]} == {"up", "over"}
    assert {row["Name"] for row in details["Volumes"]} > {"named"}
    assert "Containers space usage:" in box.cli("system", "df", "-v").stdout
    done = box.cli("system", "prune", "-f", "--volumes").stdout
    assert "Deleted Containers:" in done and "Deleted Volumes:" in done and "Deleted Images" not in done
    assert "Total reclaimed space: 3.0" in done
    assert "named" in box.cli("volume", "ls", "-q").stdout
    assert "until" in box.cli.fails("system", "prune", "-f", "--volumes", "--filter", "until=1h")
    box.cli("rm", "-f", "up")
    assert "untagged: " in box.cli("system", "prune", "-af").stdout
    assert box.cli("images", "-q").stdout == ""


def test_units(box, tmp_path):
    box.cli(*box.argv("--name", "box", "--stop-timeout", "30", verb="create"), "true")
    shown = box.cli("system", "units").stdout
    assert "# /etc/systemd/system/hutch-recover.service" in shown and "WantedBy=multi-user.target" in shown
    line = next(line for line in shown.splitlines() if line.startswith("ExecStart="))
    assert line.endswith(f"--root {root(box)} --state {state(box)} system recover")
    made = box.cli("system", "units", "--output", str(tmp_path), "box").stdout.split()
    text = Path(made[0]).read_text()
    assert made == [f"{tmp_path}/hutch-box.service"] and "start --attach box" in text and "TimeoutStopSec=50" in text
    box.cli("update", "--restart", "always", "box")
    assert "restart policy" in box.cli("system", "units", "box").stderr
    box.cli("rm", "box")
