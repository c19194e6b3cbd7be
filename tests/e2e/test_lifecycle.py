"""Containers that live: started, watched, attached to, restarted, stopped and removed by other commands."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import termios
import time

from tests.support.host import requires
from tests.support.programs import wait_until
from tests.support.runner import Runner

pytestmark = requires("root")

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


def status(box: Runner, name: str) -> str:
    return box.cli("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}").stdout.strip()


def test_a_life(box):
    container = box.script("echo $$ > /pid; trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done", "--name", "one")
    assert box.record("one").id == container
    assert status(box, "one").startswith("Up ")
    assert box.cli("stop", "one").stdout == "one\n"
    assert status(box, "one").startswith("Exited (7) ")
    box.cli("start", "one")
    assert box.cli("exec", "one", "cat", "/pid").stdout == "1\n"
    box.cli("rename", "one", "two")
    assert "no such container: one" in box.cli.fails("stop", "one")
    assert box.cli("kill", "two").stdout == "two\n"
    assert box.record("two").exit_code == 137  # at once: kill waits
    assert box.cli("wait", "two").stdout == "137\n"
    assert "is not running" in box.cli.fails("kill", "two")
    assert "is not running" in box.cli.fails("exec", "two", "true")
    box.cli("rm", "two")
    assert box.cli("ps", "-aq").stdout == ""
    assert os.listdir(f"{box.engine.root}/containers") == []


def test_create_then_start_attached(box):
    made = box.cli(*box.argv("--name", "later", "-i", verb="create"), "sh", "-c", "cat; exit 5").stdout.strip()
    assert status(box, "later") == "Created"
    done = box.cli("start", "-ai", "later", stdin="hello\n", check=False)
    assert (done.stdout, done.returncode) == ("hello\n", 5)
    assert box.record("later").id == made
    box.cli("rm", "later")


def test_stop_waits_and_then_kills(box):
    box.script("trap '' TERM; echo up; while :; do sleep 0.05; done", "--name", "deaf")
    wait_until(lambda: "up" in box.cli("logs", "deaf").stdout, 5)
    start = time.monotonic()
    box.cli("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - start < 5
    assert status(box, "deaf").startswith("Exited (137) ")
    box.cli("rm", "deaf")


def test_what_was_written_is_kept_until_removal(box):
    box.script("echo x >> /count; wc -l < /count", "--name", "keeper")
    box.cli("wait", "keeper")
    assert box.cli("start", "-a", "keeper").stdout == "2\n"
    assert box.cli("start", "-a", "keeper").stdout == "3\n"
    box.cli("rm", "keeper")


def test_on_failure_restarts_so_often_and_no_more(box):
    box.script("echo x >> /count; exit 3", "--name", "failing", "--restart", "on-failure:2")
    wait_until(lambda: status(box, "failing").startswith("Exited (3)"), 10)
    assert box.record("failing").restart_count == 2
    assert box.cli("start", "-a", "failing", check=False).returncode == 3
    box.cli("rm", "-f", "failing")


def test_always_restarts_until_it_is_stopped(box):
    box.script("echo x >> /count; exec sleep 0.2", "--name", "stubborn", "--restart", "always")
    wait_until(lambda: box.record("stubborn").restart_count >= 2, 15)
    box.cli("stop", "stubborn")
    count = box.record("stubborn").restart_count
    time.sleep(1)
    assert box.record("stubborn").restart_count == count
    assert status(box, "stubborn").startswith("Exited")
    box.cli("rm", "stubborn")


def test_restart_is_one_thing(box):
    box.script("echo x >> /count; exec sleep 60", "--name", "again")
    first = box.record("again").pid
    box.cli("restart", "-t", "0", "again")
    second = box.record("again").pid
    assert first != second
    assert box.cli("exec", "again", "cat", "/count").stdout == "x\nx\n"
    box.cli("restart", "-t", "0", "again")
    box.cli("rm", "-f", "again")


def test_pause(box):
    box.script(COUNT, "--name", "frozen")
    box.cli("pause", "frozen")
    assert status(box, "frozen").endswith("(Paused)")
    assert "is paused" in box.cli.fails("exec", "frozen", "true")
    assert "already paused" in box.cli.fails("pause", "frozen")
    lines = box.cli("logs", "frozen").stdout
    time.sleep(0.3)
    assert box.cli("logs", "frozen").stdout == lines
    box.cli("unpause", "frozen")
    assert "not paused" in box.cli.fails("unpause", "frozen")
    wait_until(lambda: box.cli("logs", "frozen").stdout != lines, 5)
    box.cli("pause", "frozen")
    box.cli("stop", "-t", "1", "frozen")
    assert status(box, "frozen").startswith("Exited")
    box.cli("rm", "frozen")


def test_health(box):
    flags = ("--health-interval", "100ms", "--health-retries", "2", "--health-timeout", "1s")
    box.script("touch /well; exec sleep 60", "--name", "ill", "--health-cmd", "echo seen; test -e /well", *flags)
    wait_until(lambda: box.record("ill").health.get("Status") == "healthy", 10)
    assert box.record("ill").health["Log"][-1]["Output"] == "seen\n"
    box.cli("exec", "ill", "rm", "/well")
    wait_until(lambda: box.record("ill").health["Status"] == "unhealthy", 10)
    assert box.record("ill").health["FailingStreak"] >= 2
    assert len(box.record("ill").health["Log"]) <= 5
    box.cli("exec", "ill", "touch", "/well")
    wait_until(lambda: box.record("ill").health["Status"] == "healthy", 10)
    box.cli("rm", "-f", "ill")


def test_a_probe_that_hangs_is_killed_with_all_it_started(box):
    flags = ("--health-interval", "60s", "--health-start-period", "1s", "--health-start-interval", "100ms")
    flags += ("--health-timeout", "500ms", "--health-retries", "1")
    probe = "yes | head -c 1000000; sleep 1000 & sleep 1000"
    box.script("exec sleep 60", "--name", "hung", "--health-cmd", probe, *flags)
    wait_until(lambda: box.record("hung").health.get("Status") == "unhealthy", 10)
    entry = box.record("hung").health["Log"][0]
    assert entry["ExitCode"] == -1
    assert "exceeded timeout" in entry["Output"]
    assert len(entry["Output"]) < 5000
    script = "cat /proc/[0-9]*/stat | grep -c '(sleep) [SR]'"
    wait_until(lambda: box.cli("exec", "hung", "sh", "-c", script).stdout == "1\n", 10)
    box.cli("rm", "-f", "hung")


def test_many_watch_one(box):
    box.script(COUNT, "--name", "star")
    watchers = [
        subprocess.Popen([*box.cli.words, "attach", "star"], env=box.cli.env, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for watcher in watchers:
            assert watcher.stdout is not None
            first = int(watcher.stdout.readline())
            assert [int(watcher.stdout.readline()) for _ in range(3)] == [first + 1, first + 2, first + 3]
        box.cli("stop", "-t", "0", "star")
        assert [watcher.wait(10) for watcher in watchers] == [137] * 4
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.communicate()
    box.cli("rm", "-f", "star")


def test_a_watcher_who_stops_looking_stops_nobody(box):
    box.script("while :; do echo 0123456789012345678901234567890123456789; done", "--name", "loud")
    with subprocess.Popen([*box.cli.words, "attach", "loud"], env=box.cli.env, stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        watcher.send_signal(signal.SIGSTOP)
        time.sleep(1)
        start = time.monotonic()
        box.cli("exec", "loud", "true")
        box.cli("stop", "-t", "0", "loud")
        assert time.monotonic() - start < 10
        watcher.kill()
        watcher.communicate()
    box.cli("rm", "loud")


def test_output_of_the_foreground_is_whole_however_slowly_it_is_read(box):
    argv = [*box.cli.words, *box.argv("--rm"), "seq", "400000"]
    with subprocess.Popen(argv, env=box.cli.env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        time.sleep(0.5)
        assert process.stdout.read() == b"".join(b"%d\n" % number for number in range(1, 400001))
        assert process.wait(20) == 0


def test_a_reader_who_leaves_ends_a_container_of_his_own(box):
    command = f"{' '.join(box.cli.words)} {' '.join(box.argv('--rm'))} yes | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], env=box.cli.env, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "y\n"
    assert box.cli("ps", "-aq").stdout == ""


def test_detach_and_attach_again(box):
    with box.terminal(*box.argv("-it", "--name", "shell"), "sh") as terminal:
        terminal.until(b"# ")
        terminal.type(b"x=remembered\n")
        terminal.until(b"# ")
        terminal.type(b"\x10\x11")
        assert terminal.wait() == 0
        assert termios.tcgetattr(terminal.fd)[3] & termios.ECHO
    assert status(box, "shell").startswith("Up ")
    with box.terminal("attach", "shell") as terminal:
        terminal.type(b"echo $x; exit 3\n")
        terminal.until(b"remembered")
        assert terminal.wait() == 3
    box.cli("rm", "shell")


def test_other_detach_keys_and_the_window_size(box):
    with box.terminal(*box.argv("-it", "--name", "keys", "--detach-keys", "ctrl-x,q"), "sh") as terminal:
        terminal.until(b"# ")
        termios.tcsetwinsize(terminal.fd, (31, 97))
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.type(b"sleep 0.2; stty size\n")
        terminal.until(b"31 97")
        terminal.type(b"echo \x10\n")
        terminal.until(b"# ")
        terminal.type(b"\x18q")
        assert terminal.wait() == 0
    box.cli("rm", "-f", "keys")


def test_exec_in_a_terminal(box):
    box.detached("sleep", "60", flags=("--name", "host"))
    with box.terminal("exec", "-it", "host", "sh") as terminal:
        terminal.until(b"# ")
        terminal.type(b"tty; sleep 5\n")
        terminal.until(b"/dev/pts/")
        terminal.type(b"\x03")
        terminal.until(b"# ")
        terminal.type(b"exit 9\n")
        assert terminal.wait() == 9
    box.cli("rm", "-f", "host")


def test_exec(box):
    box.detached("sleep", "60", flags=("--name", "host", "-e", "A=1", "-w", "/tmp"))
    cli = box.cli
    assert cli("exec", "-i", "host", "cat", stdin="in\n").stdout == "in\n"
    assert cli("exec", "host", "sh", "-c", "echo $A; pwd; id -u").stdout == "1\n/tmp\n0\n"
    assert (
        cli("exec", "-e", "A=2", "-w", "/", "-u", "1000", "host", "sh", "-c", "echo $A; pwd; id -u").stdout
        == "2\n/\n1000\n"
    )
    assert cli("exec", "host", "sh", "-c", "exit 6", check=False).returncode == 6
    assert "executable file not found" in cli.fails("exec", "host", "nosuch", status=127)
    assert "permission denied" in cli.fails("exec", "host", "/etc/passwd", status=126)
    assert "unable to find user" in cli.fails("exec", "-u", "nobody-there", "host", "true", status=126)
    cli("exec", "-d", "host", "sh", "-c", "echo done > /tmp/done")
    wait_until(lambda: cli("exec", "host", "cat", "/tmp/done", check=False).stdout == "done\n", 5)
    assert "no such container" in cli.fails("exec", "nobody", "true", status=1)
    cli("rm", "-f", "host")


def test_c03_exec_has_no_more_than_its_container(box):
    box.detached("sleep", "60", flags=("--name", "poor", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"))
    shown = box.cli("exec", "poor", "cat", "/proc/self/status").stdout
    status = dict(line.split(":", 1) for line in shown.splitlines())
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    box.cli("rm", "-f", "poor")


def test_two_at_once_take_one_name_once(box):
    argv = [*box.cli.words, *box.argv("-d", "--name", "single"), "sleep", "60"]
    rivals = [subprocess.Popen(argv, env=box.cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    ended = [rival.communicate(timeout=60) and rival.returncode for rival in rivals]
    assert sorted(ended) == [0] + [125] * 7
    assert len(os.listdir(f"{box.engine.root}/containers")) == 1
    box.cli("rm", "-f", "single")


def test_x02_a_killed_monitor_leaves_an_honest_record(box):
    box.script(COUNT, "--name", "orphan")
    (monitor,) = _monitors(box, "orphan")
    pid = box.record("orphan").pid
    os.kill(monitor, signal.SIGKILL)
    wait_until(lambda: status(box, "orphan").startswith("Exited (137)"), 10)
    assert "its monitor was killed" in box.record("orphan").error
    assert _state(pid) in "ZX"
    box.cli("start", "orphan")
    box.cli("rm", "-f", "orphan")


def test_a_killed_fork_server_harms_nobody(box):
    box.script(COUNT, "--name", "child")
    box.cli("exec", "child", "true")
    for pid in _processes(box):
        if pid not in _monitors(box, "child"):
            with contextlib.suppress(ProcessLookupError):  # an exec's session, which ends by itself
                os.kill(pid, signal.SIGKILL)
    assert box.cli("exec", "child", "echo", "alive").stdout == "alive\n"
    assert box("echo", "new").stdout == "new\n"
    box.cli("rm", "-f", "child")


def test_a_container_sees_the_mounts_of_who_starts_it(box, tmp_path):
    """And not those of who happened to start the fork server."""
    argv = [*box.cli.words, *box.argv("--rm", "-v", f"{tmp_path}:/x"), "ls", "/x"]
    (tmp_path / "outside").touch()
    assert subprocess.run(argv, env=box.cli.env, capture_output=True, text=True, check=True).stdout == "outside\n"
    script = f'mount -t tmpfs none {tmp_path} && touch {tmp_path}/inside && exec "$@"'
    elsewhere = ["unshare", "-m", "sh", "-c", script, "sh", *argv]
    assert subprocess.run(elsewhere, env=box.cli.env, capture_output=True, text=True, check=True).stdout == "inside\n"
    assert subprocess.run(argv, env=box.cli.env, capture_output=True, text=True, check=True).stdout == "outside\n"


def _processes(box: Runner) -> list[int]:
    """The fork server of this engine, and what it forked."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (OSError, ValueError):
            continue
        if os.fsencode(box.engine.state) in words and any(b"forkserver" in word for word in words):
            found.append(int(name))
    return found


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def _monitors(box: Runner, name: str) -> list[int]:
    """Who is the parent of a container's init."""
    with open(f"/proc/{box.record(name).pid}/stat", encoding="utf-8") as file:
        return [int(file.read().rpartition(")")[2].split()[1])]
