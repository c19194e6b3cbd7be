from __future__ import annotations

import pytest

from hutch.cli import flags
from hutch.cli.flags import Flag, HelpRequested, UsageError
from hutch.cli.run_flags import RUN_FLAGS, run_options
from hutch.cli.terminal import DetachKeys, parse_detach_keys
from hutch.errors import HutchError, InvalidArgument

TABLE = (
    Flag("rm"),
    Flag("tty", short="t"),
    Flag("interactive", short="i"),
    Flag("env", "var...", short="e"),
    Flag("memory", "bytes", short="m", default="0"),
    Flag("name", "text", default=""),
)


def parse(*argv: str, interspersed: bool = False) -> tuple[dict[str, object], list[str]]:
    return flags.parse(TABLE, argv, interspersed=interspersed)


def test_every_spelling_of_a_flag():
    given, rest = parse(
        "-it", "-e", "A=1", "-eB=2", "-e=C", "--env=D=4", "--env", "E", "-m512m", "--rm", "image", "-x", "--rm=0"
    )
    assert given["interactive"] is given["tty"] is given["rm"] is True
    assert given["env"] == ("A=1", "B=2", "C", "D=4", "E")
    assert given["memory"] == "512m"
    assert rest == ["image", "-x", "--rm=0"]


def test_a_switch_can_be_turned_off_and_the_last_word_counts():
    assert parse("--rm", "--rm=false")[0]["rm"] is False
    assert parse("-t=false", "-i=true")[0]["tty"] is False


def test_two_dashes_end_the_flags_and_one_is_an_argument():
    assert parse("--", "--rm", "x")[1] == ["--rm", "x"]
    assert parse("-", "--rm", interspersed=True) == ({**parse()[0], "rm": True}, ["-"])


def test_a_shorthand_with_a_value_may_end_a_cluster():
    assert parse("-itm", "5")[0]["memory"] == "5"
    assert parse("-ite", "A=b")[0]["env"] == ("A=b",)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["-Z"], "unknown shorthand flag: 'Z' in -Z"),
        (["-tZ"], "unknown shorthand flag: 'Z' in -tZ"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["--rm=x"], 'invalid argument "x" for "--rm" flag: '),
    ],
)
def test_mistakes_are_named_in_dockers_words(argv, message):
    with pytest.raises(UsageError, match="^" + message.replace("(", "\\(")):
        parse(*argv)


def test_an_unknown_flag_hints_at_the_nearest():
    with pytest.raises(UsageError) as caught:
        parse("--memroy", "3")
    assert "--memory" in caught.value.hint


def test_help_wins_over_what_follows():
    with pytest.raises(HelpRequested):
        parse("--help", "--foo")


def run(*argv: str):
    given, rest = flags.parse(RUN_FLAGS, argv, interspersed=False)
    return run_options(given, rest)


def test_no_flag_has_two_meanings():
    names = [flag.name for flag in RUN_FLAGS]
    shorts = [flag.short for flag in RUN_FLAGS if flag.short]
    assert len(names) == len(set(names))
    assert len(shorts) == len(set(shorts))


@pytest.mark.parametrize("flag", ["-p=80:80", "--gpus=all", "-P"])
def test_what_is_not_there_yet_is_refused_with_a_hint(flag):
    with pytest.raises(UsageError, match="not supported in this version") as caught:
        run(flag, "busybox")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-m", "3x", "b"], "invalid suffix: 'x'"),
        (["--memory-swap", "zz", "b"], "invalid size: 'zz'"),
        (["--cpus", "abc", "b"], "failed to parse abc as a rational number"),
        (["--mount", "type=foo", "b"], "target is required"),
        (["--mount", "bad", "b"], "invalid field 'bad' must be a key=value pair"),
        (["--mount", "type=bind,src=/a,dst=/b,foo=1", "b"], "unexpected key 'foo' in 'foo=1'"),
        (
            ["--mount", "type=bind,src=/b,dst=/b,volume-nocopy", "b"],
            "cannot mix 'volume-\\*' options with mount type 'bind'",
        ),
        (["--mount", "type=tmpfs,dst=/b,tmpfs-size=x", "b"], "invalid value for tmpfs-size: x"),
        (["--ulimit", "x", "b"], "invalid ulimit argument: x"),
        (["--ulimit", "foo=3", "b"], "invalid ulimit type: foo"),
        (["--ulimit", "nofile=5:3", "b"], "ulimit soft limit must be less than or equal to hard limit: 5 > 3"),
        (["--add-host", "foo", "b"], 'bad format for add-host: "foo"'),
        (["--device-cgroup-rule", "foo", "b"], "invalid device cgroup format 'foo'"),
        (["--device-read-bps", "foo", "b"], "bad format: foo"),
        (["--device-read-iops", "/dev/sda:x", "b"], "invalid rate for device: /dev/sda:x"),
        (["--security-opt", "foo", "b"], 'nvalid --security-opt: "foo"'),
        (["--pid", "foo", "b"], "--pid: invalid PID mode"),
        (["--uts", "foo", "b"], "--uts: invalid UTS mode"),
        (["--userns", "foo", "b"], "--userns: invalid USER mode"),
        (["--cgroupns", "foo", "b"], "--cgroupns: invalid CGROUP mode"),
        (["--sysctl", "foo", "b"], "sysctl 'foo' is not allowed"),
        (["--shm-size", "q", "b"], "invalid size: 'q'"),
        (["--dns", "foo", "b"], "IP address is not correctly formatted: foo"),
        (["-e", "=x", "b"], "invalid environment variable: =x"),
        (["--env-file", "/nonexistent", "b"], "open /nonexistent: no such file or directory"),
        (["--label-file", "/nonexistent", "b"], "open /nonexistent: no such file or directory"),
        (["--memory-swappiness", "101", "b"], "range is 0-100"),
        (["--pull", "foo", "b"], 'must be one of "always", "missing" or "never"'),
        (["-v", ":::", "b"], "invalid spec: :::: empty section between colons"),
        (["-v", "/a:rel", "b"], "mount path must be absolute"),
        (["-v", "/a:/", "b"], "destination can't be '/'"),
        (["-v", "/a:/b:nonsense", "b"], "invalid mode: nonsense"),
        (["-v", "/a:/b:ro,rw", "b"], "conflicting options"),
        (["-v", "/a:/x", "--tmpfs", "/x", "b"], "duplicate mount point: /x"),
        (["-m", "1m", "b"], "minimum memory limit allowed is 6MB"),
        (["--memory-swap", "10m", "b"], "you should always set the memory limit when using memory-swap"),
        (["-m", "20m", "--memory-swap", "10m", "b"], "minimum memory-swap limit should be larger than memory limit"),
        (["-m", "20m", "--memory-reservation", "30m", "b"], "can not be less than memory reservation"),
        (["--cpus", "1", "--cpu-quota", "5000", "b"], "conflicting options: Nano CPUs and CPU Quota"),
        (["--cpu-period", "5", "b"], "CPU cfs period can not be less than 1ms"),
        (["--network", "host", "--sysctl", "net.ipv4.ip_forward=1", "b"], "not allowed in host network namespace"),
        (["--uts", "host", "-h", "x", "b"], "conflicting options: hostname and the UTS mode"),
        (["--privileged", "--userns", "auto", "b"], "privileged mode is incompatible with user namespaces"),
        (["--network", "bridge", "b"], "network 'bridge' is not supported"),
        (["-w", "rel", "b"], "it needs to be an absolute path"),
        (["--blkio-weight", "5", "b"], "range of blkio weight is from 10 to 1000"),
        (["--oom-score-adj", "2000", "b"], "range for oom score adj"),
        (["--stop-signal", "FOO", "b"], "invalid signal: FOO"),
        (["--name", "a/b", "b"], "invalid container name"),
        (["--cpuset-cpus", "1-4294967295", "b"], "out of order or too large"),
        (["--cpuset-cpus", "a", "b"], "invalid cpuset list"),
    ],
)
def test_wrong_values_and_conflicts(argv, message):
    with pytest.raises(HutchError, match=message):
        run(*argv)


def test_every_run_flag_reaches_the_options_or_is_refused():
    """No flag is accepted and ignored: each changes RunOptions, or is one of those that the command itself uses."""
    own = {"detach-keys", "dry-run", "explain", "quiet", "sig-proxy"}
    samples = {
        "add-host": "a:1.2.3.4", "annotation": "k=v", "blkio-weight": "20", "blkio-weight-device": "/dev/sda:20",
        "cgroupns": "host", "cpu-period": "5000", "cpu-quota": "5000", "cpu-shares": "3", "cpus": "1.5",
        "cpuset-cpus": "0", "cpuset-mems": "0", "device": "/dev/null", "device-cgroup-rule": "c 1:3 r",
        "device-read-bps": "/dev/sda:1m", "device-write-bps": "/dev/sda:1m", "device-read-iops": "/dev/sda:5",
        "device-write-iops": "/dev/sda:5", "health-interval": "5s", "health-retries": "3",
        "health-start-interval": "5s", "health-start-period": "5s", "health-timeout": "5s", "log-driver": "local",
        "log-opt": "max-size=1m",
        "restart": "always", "stop-timeout": "3", "dns": "1.1.1.1",
        "env-file": "FILE", "label-file": "FILE", "ipc": "host",
        "memory": "10m", "memory-reservation": "10m", "memory-swap": "-1", "memory-swappiness": "5",
        "mount": "type=tmpfs,dst=/x", "network": "host", "net": "host", "oom-score-adj": "5", "pid": "host",
        "pids-limit": "5", "pull": "never", "rootfs": "/", "security-opt": "no-new-privileges", "shm-size": "1m",
        "stop-signal": "INT", "sysctl": "net.ipv4.ip_forward=1", "systemd": "always", "tmpfs": "/x",
        "ulimit": "nofile=5", "userns": "host", "uts": "host", "volume": "/a:/b", "workdir": "/w",
    }  # fmt: skip
    plain = run("image")
    for flag in RUN_FLAGS:
        if flag.name in own:
            continue
        value = samples.get(flag.name, "abc")
        if value == "FILE":
            continue  # test_env_file below
        argv = [f"--{flag.name}={value}"] if flag.kind else [f"--{flag.name}"]
        try:
            changed = run(*argv, "image")
        except UsageError as error:
            assert "not supported in this version" in str(error), flag.name
            continue
        assert changed != plain, flag.name


def test_env_and_label_files(tmp_path):
    env, labels = tmp_path / "env", tmp_path / "labels"
    env.write_text("\ufeff# comment\n\nA=1\n  B=two words\nC\n", encoding="utf-8")
    labels.write_text("x=y\nz\n")
    found = run("--env-file", str(env), "-e", "A=2", "--label-file", str(labels), "-l", "x=z", "image")
    assert found.env == ("A=1", "B=two words", "C", "A=2")
    assert found.labels == (("x", "z"), ("z", ""))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A B=1\n", "contains whitespaces"),
        (b"=1\n", "no variable name"),
        (b"ok=1\n\xff\n", "invalid utf8 bytes at line 2"),
    ],
)
def test_a_poor_env_file_is_refused(tmp_path, content, message):
    (tmp_path / "env").write_bytes(content)
    with pytest.raises(InvalidArgument, match=message):
        run("--env-file", str(tmp_path / "env"), "image")


def test_detach_keys_are_found_across_reads():
    keys = DetachKeys(parse_detach_keys("ctrl-p,ctrl-q"))
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"c") == (b"\x10c", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x11z") == (b"", True)
    assert parse_detach_keys("a,ctrl-[") == b"a\x1b"
    with pytest.raises(InvalidArgument, match="invalid detach keys"):
        parse_detach_keys("foo")
