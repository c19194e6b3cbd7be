from __future__ import annotations

import json
import os

import pytest

from hutch.cli import flags
from hutch.cli.run_flags import RUN_FLAGS, run_options
from hutch.engine import security, specgen
from hutch.engine.host import HostFacts
from hutch.engine.image_settings import ImageSettings
from hutch.engine.mounts import Attached, MountFacts
from hutch.engine.selinux import Contexts
from hutch.engine.users import ContainerUser
from hutch.errors import InvalidArgument, NotSupported
from hutch.linux.caps import NAMES

SCHEMAS = os.path.join(os.path.dirname(__file__), "../../../../shared/specs/oci-runtime")
FACTS = HostFacts(permitted=frozenset(NAMES), processors=4, hard_limits=(("nofile", 4096), ("core", -1)))
ROOT = ContainerUser(uid=0, gid=0, groups=(0,), home="/root")
PLACES = specgen.Places(container_id="ab" * 32, rootfs="/x/rootfs", hostname="abababababab", cgroup="/hutch/ab")


def make(
    *argv: str, image: ImageSettings | None = None, facts: HostFacts = FACTS, user: ContainerUser = ROOT, **resolved
):
    given, rest = flags.parse(RUN_FLAGS, [*argv, "image", "cmd"], interspersed=False)
    options = run_options(given, rest)
    attached = tuple(Attached(request=mount, source=mount.source) for mount in options.mounts)
    resolved.setdefault("mounts", MountFacts(attached=attached))
    warnings: list[str] = []
    env = tuple(specgen_env(options))
    found = specgen.Resolved(facts=facts, user=user, env=env, **resolved)
    places = PLACES.replace(hostname=options.hostname or PLACES.hostname)
    spec = specgen.make_spec(options, image or ImageSettings(), found, places, warnings)
    return spec, warnings


def specgen_env(options):
    from hutch.engine.values import resolve_env

    return resolve_env(options.env, {"CALLER": "mine"}).items()


def at(document, path: str):
    for key in path.split("."):
        document = document[int(key)] if key.isdigit() else document[key]
    return document


def mount_at(spec, destination: str):
    return next(mount for mount in spec["mounts"] if mount["destination"] == destination)


# Docker's flag → where it lands in config.json, and as what.
TABLE = [
    (["-m", "64m"], "linux.resources.memory.limit", 64 << 20),
    (["-m", "64m"], "linux.resources.memory.swap", 128 << 20),
    (["-m", "64m", "--memory-swap", "-1"], "linux.resources.memory.swap", -1),
    (["--memory-reservation", "32m"], "linux.resources.memory.reservation", 32 << 20),
    (["--memory-swappiness", "0"], "linux.resources.memory.swappiness", 0),
    (["--oom-kill-disable", "-m", "10m"], "linux.resources.memory.disableOOMKiller", True),
    (["--cpus", "1.5"], "linux.resources.cpu.quota", 150_000),
    (["--cpus", "1.5"], "linux.resources.cpu.period", 100_000),
    (["-c", "512"], "linux.resources.cpu.shares", 512),
    (["--cpu-quota", "50000"], "linux.resources.cpu.quota", 50_000),
    (["--cpu-period", "50000"], "linux.resources.cpu.period", 50_000),
    (["--cpuset-cpus", "0-1"], "linux.resources.cpu.cpus", "0-1"),
    (["--cpuset-mems", "0"], "linux.resources.cpu.mems", "0"),
    ([], "linux.resources.pids.limit", 4096),
    (["--pids-limit", "7"], "linux.resources.pids.limit", 7),
    (["--pids-limit", "-1"], "linux.resources.pids.limit", -1),
    (["--pids-limit", "0"], "linux.resources.pids.limit", -1),
    (["--blkio-weight", "300"], "linux.resources.blockIO.weight", 300),
    (["--oom-score-adj", "500"], "process.oomScoreAdj", 500),
    (["-h", "box"], "hostname", "box"),
    ([], "hostname", "abababababab"),
    (["-h", "box", "--domainname", "lan"], "domainname", "lan"),
    (["-w", "/a/../b"], "process.cwd", "/b"),
    ([], "process.cwd", "/"),
    (["--read-only"], "root.readonly", True),
    ([], "root.readonly", False),
    (["-t"], "process.terminal", True),
    (["--entrypoint", "/e"], "process.args", ["/e", "cmd"]),
    (["--init"], "process.args", ["/dev/init", "--", "cmd"]),
    (["--annotation", "a=b"], "annotations.a", "b"),
    (["--sysctl", "net.ipv4.ip_forward=1"], "linux.sysctl", {
        "net.ipv4.ping_group_range": "0 2147483647",
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ip_forward": "1",
    }),
    ([], "process.user.umask", 0o022),
    (["--security-opt", "no-new-privileges"], "process.noNewPrivileges", True),
    ([], "process.noNewPrivileges", False),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "path", "value"), TABLE)
def test_a_flag_lands_where_the_specification_has_it(argv, path, value):
    assert at(make(*argv)[0], path) == value


def test_the_default_posture():
    spec, warnings = make()
    process, linux = spec["process"], spec["linux"]
    assert process["capabilities"]["bounding"] == sorted(security.DEFAULT_CAPABILITIES)
    assert len(process["capabilities"]["bounding"]) == 11
    assert [kind["type"] for kind in linux["namespaces"]] == ["mount", "pid", "ipc", "uts", "network", "cgroup"]
    assert "/proc/kallsyms" in linux["maskedPaths"]
    assert "/sys/firmware" in linux["maskedPaths"]
    assert linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert {"nosuid", "noexec"} <= set(mount_at(spec, "/dev")["options"])
    assert "size=67108864" in mount_at(spec, "/dev/shm")["options"]
    assert "ro" in mount_at(spec, "/sys")["options"]
    assert "ro" in mount_at(spec, "/sys/fs/cgroup")["options"]
    assert warnings == []


def test_c01_nothing_is_inheritable_or_ambient():
    for argv in ([], ["--cap-add", "ALL"], ["--privileged"], ["-u", "5"]):
        sets = make(*argv)[0]["process"]["capabilities"]
        assert sets["inheritable"] == sets["ambient"] == []


def test_c02_a_user_has_no_capabilities_in_force():
    user = ContainerUser(uid=1000, gid=1000, groups=(1000,))
    process = make("-u", "1000", "--cap-add", "NET_ADMIN", user=user)[0]["process"]
    assert process["capabilities"]["effective"] == process["capabilities"]["permitted"] == []
    assert process["noNewPrivileges"] is True
    assert make("--security-opt", "no-new-privileges=false", user=user)[0]["process"]["noNewPrivileges"] is False


@pytest.mark.parametrize(
    ("argv", "has", "lacks"),
    [
        (["--cap-add", "net_raw"], "CAP_NET_RAW", "CAP_SYS_ADMIN"),
        (["--cap-drop", "ALL", "--cap-add", "chown"], "CAP_CHOWN", "CAP_KILL"),
        (["--cap-drop", "CAP_CHOWN"], "CAP_KILL", "CAP_CHOWN"),
        (["--cap-add", "ALL", "--cap-drop", "sys_admin"], "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
        (["--privileged"], "CAP_SYS_ADMIN", "none"),
        (["--security-opt", "profile=compat"], "CAP_MKNOD", "CAP_SYS_ADMIN"),
        (["--security-opt", "profile=strict", "--cap-add", "KILL"], "CAP_KILL", "CAP_CHOWN"),
    ],
)
def test_capability_flags(argv, has, lacks):
    bounding = make(*argv)[0]["process"]["capabilities"]["bounding"]
    assert has in bounding
    assert lacks not in bounding


def test_profiles():
    strict = make("--security-opt", "profile=strict")[0]
    assert strict["process"]["capabilities"]["bounding"] == []
    assert strict["process"]["noNewPrivileges"] is True
    assert strict["root"]["readonly"] is True
    compat = make("--security-opt", "profile=compat")[0]
    assert len(compat["process"]["capabilities"]["bounding"]) == 14
    assert "pids" not in compat["linux"]["resources"]
    assert "rlimits" not in compat["process"]
    assert {"type": "cgroup"} not in compat["linux"]["namespaces"]  # Docker's, on cgroup v1
    open_paths = make("--security-opt", "systempaths=unconfined")[0]["linux"]
    assert open_paths["maskedPaths"] == open_paths["readonlyPaths"] == []


def test_c15_what_is_asked_for_and_cannot_be_had_is_an_error():
    with pytest.raises(NotSupported, match="SELinux is not enabled"):
        make("--security-opt", "label=type:x")
    with pytest.raises(InvalidArgument, match="label='nothing'"):
        make("--security-opt", "label=nothing")
    with pytest.raises(NotSupported, match="CAP_SYS_TIME"):
        make("--cap-add", "SYS_TIME", facts=FACTS.replace(permitted=frozenset(NAMES) - {"CAP_SYS_TIME"}))
    with pytest.raises(InvalidArgument, match="invalid capability: FOO"):
        make("--cap-add", "FOO")
    with pytest.raises(NotSupported, match="--memory: this user has no cgroup"):
        make("-m", "10m", facts=FACTS.replace(undelegated="no manager"))
    with pytest.raises(NotSupported, match="does not account for swap"):
        make("-m", "10m", "--memory-swap", "20m", facts=FACTS.replace(swap_accounting=False))
    with pytest.raises(InvalidArgument, match=r"range of CPUs is from 0.01 to 4.00"):
        make("--cpus", "5")


def test_selinux_labels_are_those_of_the_policy_and_the_user() -> None:
    contexts = Contexts(process="system_u:system_r:container_t:s0", file="system_u:object_r:container_file_t:s0")
    facts = FACTS.replace(selinux=True, selinux_contexts=contexts)
    spec, _ = make("--security-opt", "label=type:my_t", "--security-opt", "label=level:s0:c7", facts=facts)
    assert spec["process"]["selinuxLabel"] == "system_u:system_r:my_t:s0:c7"
    assert spec["linux"]["mountLabel"] == "system_u:object_r:container_file_t:s0:c7"
    for given in ((), ("--security-opt", "label=disable")):
        spec, _ = make(*given, "-v", "/x:/y:z", facts=facts)
        assert "selinuxLabel" not in spec["process"]
        assert "mountLabel" not in spec["linux"]
    assert mount_at(make("-v", "/x:/y:ro,Z")[0], "/y")["options"][-1] == "rro"


def test_limits_above_the_hosts_are_lowered_with_a_warning():
    facts = FACTS.replace(raise_limits=False)
    spec, warnings = make(facts=facts)
    limits = {limit["type"]: (limit["soft"], limit["hard"]) for limit in spec["process"]["rlimits"]}
    assert limits["RLIMIT_NOFILE"] == (1024, 4096)
    assert limits["RLIMIT_CORE"] == (0, 0)
    assert warnings == []
    spec, warnings = make("--ulimit", "nofile=8000:9000", "--ulimit", "core=-1", facts=facts)
    limits = {limit["type"]: (limit["soft"], limit["hard"]) for limit in spec["process"]["rlimits"]}
    assert limits["RLIMIT_NOFILE"] == (4096, 4096)
    assert limits["RLIMIT_CORE"] == ((1 << 64) - 1, (1 << 64) - 1)
    assert "nofile" in warnings[0]


def test_mounts_are_hardened_and_sorted_by_depth():
    spec, _ = make("-v", "/src:/a/b/c:ro", "-v", "/x:/a:exec,suid", "--tmpfs", "/a/t:exec", "-v", "/shm:/dev/shm")
    assert mount_at(spec, "/a/b/c")["options"] == ["rbind", "nodev", "nosuid", "rprivate", "ro", "rro"]
    assert mount_at(spec, "/a")["options"] == ["rbind", "nodev", "rprivate"]
    assert mount_at(spec, "/a/t")["options"] == ["nodev", "nosuid", "mode=1777"]
    assert mount_at(spec, "/dev/shm")["type"] == "bind"
    depths = [mount["destination"].count("/") for mount in spec["mounts"]]
    assert depths == sorted(depths)


def test_host_namespaces():
    spec, _ = make("--pid=host", "--ipc=host", "--uts=host", "--network=host", "--cgroupns=host")
    assert spec["linux"]["namespaces"] == [{"type": "mount"}]
    assert "hostname" not in spec
    assert "sysctl" not in spec["linux"]
    assert mount_at(spec, "/dev/shm")["type"] == "bind"


def test_a_user_namespace_binds_what_it_may_not_mount():
    maps = ({"containerID": 0, "hostID": 1000, "size": 1},)
    spec, _ = make(
        "--network=host", "--pid=host", uid_mappings=maps, gid_mappings=maps,
        mounts=MountFacts(userns=True, tty_gid_mapped=False),
    )  # fmt: skip
    assert {"type": "user"} in spec["linux"]["namespaces"]
    assert mount_at(spec, "/sys")["type"] == "bind"
    assert mount_at(spec, "/proc")["type"] == "bind"
    assert not any(option.startswith("gid=") for option in mount_at(spec, "/dev/pts")["options"])


def test_environment_in_dockers_order():
    image = ImageSettings(env=("PATH=/bin", "A=image", "B=image"))
    spec, _ = make("-e", "A=flag", "-e", "CALLER", "-e", "B", "-e", "UNSET", image=image)
    assert spec["process"]["env"] == ["PATH=/bin", "HOSTNAME=abababababab", "A=flag", "CALLER=mine", "HOME=/root"]
    assert "TERM=xterm" in make("-t")[0]["process"]["env"]


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "flag", "args", "found"),
    [
        ((), ("sh",), None, (), ["sh"]),
        (("e",), ("c",), None, (), ["e", "c"]),
        (("e",), ("c",), None, ("x",), ["e", "x"]),
        (("e",), ("c",), "f", (), ["f"]),
        (("e",), ("c",), "", ("x", "y"), ["x", "y"]),
    ],
)
def test_entrypoint_and_cmd(entrypoint, cmd, flag, args, found):
    from hutch.engine.options import RunOptions

    image = ImageSettings(entrypoint=entrypoint, cmd=cmd)
    assert specgen.command(RunOptions(entrypoint=flag, args=args), image) == found


def test_nothing_to_run_is_an_error():
    from hutch.engine.options import RunOptions

    with pytest.raises(InvalidArgument, match="no command specified"):
        specgen.command(RunOptions(), ImageSettings())


HOSTILE = (
    "hutch.security.seccomp", "io.hutch.privileged", "containerd.io/checkpoint", "io.kubernetes.cri-o.userns-mode",
    "io.podman.annotations.privileged", "run.oci.handler", "run.oci.hooks.stdout", "org.criu.config",
    "module.wasm.image/variant",
    "io.containerd.image.unpack", "com.docker.compose.project", "PODMAN_SYSTEMD_UNIT", "io.containers.autoupdate",
)  # fmt: skip


def test_c11_c12_labels_of_an_image_change_nothing():
    labels = tuple((name, "unconfined") for name in HOSTILE)
    assert make(image=ImageSettings(labels=labels)) == make(image=ImageSettings())


def test_c13_only_the_allowed_keys_of_an_image_are_read():
    from hutch.engine.image_settings import image_settings
    from hutch.image.manifest import parse_config

    plain = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Cmd": ["sh"]},
    }
    hostile = json.loads(json.dumps(plain))
    hostile["HostConfig"] = {"Privileged": True}
    hostile["config"] |= {"HostConfig": {"Privileged": True}, "SecurityOpt": ["seccomp=unconfined"], "Privileged": True}
    one, other = (parse_config(json.dumps(document).encode()) for document in (plain, hostile))
    assert image_settings(one.config, "amd64") == image_settings(other.config, "amd64")


def test_c16_paths_are_compared_by_components():
    from hutch.engine.limits import is_below

    assert is_below("/scratch/x", "/scratch")
    assert is_below("/scratch", "/scratch")
    assert not is_below("/scratch2", "/scratch")


@pytest.mark.skipif(not os.path.isdir(SCHEMAS), reason="the OCI schemas are not here")
@pytest.mark.parametrize(
    "argv",
    [
        [],
        [
            "-it",
            "--init",
            "-m",
            "64m",
            "--cpus",
            "1",
            "--cpuset-cpus",
            "0",
            "--blkio-weight",
            "30",
            "--ulimit",
            "nofile=5",
        ],
        ["--privileged", "--network=host", "--pid=host"],
        ["--security-opt", "profile=strict", "--read-only", "-v", "/a:/b:ro", "--tmpfs", "/t", "--annotation", "a=b"],
        ["--security-opt", "profile=compat", "--device-cgroup-rule", "c 10:* rwm", "--oom-score-adj", "5"],
    ],
)
def test_config_json_validates_against_the_schemas(argv):
    import jsonschema
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    resources = []
    for name in os.listdir(SCHEMAS):
        if name.endswith(".json"):
            with open(f"{SCHEMAS}/{name}", encoding="utf-8") as file:
                resources.append((name, DRAFT4.create_resource(json.load(file))))
    registry = Registry().with_resources(resources)
    schema = dict(resources)["config-schema.json"].contents
    validator = jsonschema.Draft4Validator(schema, registry=registry)
    spec, _ = make(*argv)
    assert [error.message for error in validator.iter_errors(json.loads(json.dumps(spec)))] == []
