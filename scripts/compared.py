"""The page that compares hutch with docker and podman, flag by flag and command by command.

What hutch has is asked of its own tables; here stand the others' names and what differs. A name of theirs that neither
has is an error of `make docs`, so that nothing is left out in silence.
"""

from __future__ import annotations

from docker_commands import COMMANDS

# `docker run --help` of 28.2, `podman run --help` of 4.3
BOTH = frozenset(
    "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile "
    "cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys "
    "device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops "
    "disable-content-trust dns dns-option dns-search entrypoint env env-file expose group-add health-cmd "
    "health-interval health-retries health-start-period health-timeout hostname init interactive ip ip6 ipc label "
    "label-file log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name "
    "net network network-alias no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged "
    "publish publish-all pull quiet read-only restart rm security-opt shm-size sig-proxy stop-signal stop-timeout "
    "sysctl tmpfs tty ulimit user userns uts volume volumes-from workdir".split()
)
DOCKER = BOTH | frozenset(
    "domainname gpus health-start-interval kernel-memory link link-local-ip runtime storage-opt use-api-socket "
    "volume-driver".split()
)
PODMAN = BOTH | frozenset(
    "arch authfile cgroup-conf cgroups chrootdirs conmon-pidfile env-host env-merge gidmap health-on-failure "
    "hostuser http-proxy image-volume init-path no-hosts os passwd passwd-entry personality pidfile pod "
    "pod-id-file preserve-fds read-only-tmpfs replace requires rmi rootfs sdnotify seccomp-policy secret "
    "subgidname subuidname systemd timeout tls-verify tz uidmap umask unsetenv unsetenv-all variant".split()
)

# Flags that hutch has, and what is not as one of the others has it.
DIFFERS = {
    "cgroup-parent": "a path; the default is `/hutch`",
    "device": "no CDI names; root's containers with devices have no private ids",
    "ipc": "no `container:NAME`",
    "memory-swappiness": "cgroup v1 only",
    "mount": "types bind, volume, tmpfs and image; images are read-only unless `rw=true`; a volume "
    "with the options of a tmpfs is each container's own",
    "network": "the default is `none`; besides `host` and `container:NAME`",
    "oom-kill-disable": "cgroup v1 only",
    "pids-limit": "the default is 4096",
    "privileged": "every privilege of the caller: an ordinary user has few to give",
    "pull": "`always`, `missing` and `never`, no `newer`",
    "security-opt": "also `profile=strict`, `default` or `compat`; the defaults are stricter: see "
    "[Security](security.md)",
    "ulimit": "without CAP_SYS_RESOURCE, limits above the caller's own are lowered, with a warning",
    "userns": "the default for root is `auto`: ids of the container's own; `keep-id` for ordinary users",
    "volume": "nosuid and nodev by default; no `:U`",
}
# Commands that do not do all as docker's do.
OTHERWISE = {
    "commit": "sockets and files called `.wh.…` are left out, and that is said; without a freezer it does not pause",
    "events": "events last over restarts of the machine: the newest 100,000 are kept",
    "inspect": "of a container also `Usage`, the bill; `GraphDriver` names hutch's own directories",
    "stats": "off a terminal it prints lines without control sequences",
    "top": "columns of `-ef` and `-o` are made by hutch, from the host's /proc; other options are for the host's ps",
    "cp": "owners are those of docker's manual: the container's root, or you; set-id bits, file capabilities and "
    "devices do not come to the host; tmpfs of a running container too",
}
# Flags that hutch does not know, and what to do instead.
ABSENT = {
    "arch": "`--platform`",
    "authfile": "`DOCKER_CONFIG`",
    "cgroup-conf": "",
    "cgroups": "",
    "chrootdirs": "",
    "conmon-pidfile": "there is no conmon",
    "disable-content-trust": "signatures are not looked at",
    "env-host": "`-e NAME` takes one variable from here",
    "env-merge": "",
    "gidmap": "`--userns`",
    "health-on-failure": "",
    "hostuser": "",
    "http-proxy": "`-e http_proxy`; nothing is passed by itself",
    "image-volume": "they are anonymous volumes",
    "init-path": "hutch has its own",
    "link-local-ip": "",
    "no-hosts": "",
    "os": "`--platform`",
    "passwd": "the image's files are left as they are",
    "passwd-entry": "",
    "personality": "",
    "pidfile": "",
    "pod": "`--network container:NAME` and `--pid container:NAME`",
    "pod-id-file": "",
    "preserve-fds": "`hutch-oci` has it",
    "read-only-tmpfs": "`--tmpfs` for each",
    "replace": "`hutch rm -f` first",
    "requires": "",
    "rmi": "`hutch rmi` afterwards",
    "sdnotify": "",
    "seccomp-policy": "an image has no say in its filter",
    "secret": "bind a file read-only",
    "subgidname": "",
    "subuidname": "",
    "timeout": "`timeout 60 hutch run …`",
    "tls-verify": "`insecure` in the configuration file",
    "tz": "`-e TZ=…`",
    "uidmap": "`--userns`",
    "umask": "",
    "unsetenv": "",
    "unsetenv-all": "",
    "use-api-socket": "",
    "variant": "`--platform`",
}

# Flags of other commands that hutch does not have, and why or what to do instead.
MISSING = {
    "checkpoint": "there are no checkpoints",
    "checkpoint-dir": "there are no checkpoints",
    "disable-content-trust": "signatures are not looked at",
    "platform": "an image here is of one platform",
    "no-prune": "layers that no image needs are deleted",
    "tree": "",
    **dict.fromkeys(
        (
            "availability cluster group limit-bytes required-bytes scope secret sharing topology-preferred "
            "topology-required type"
        ).split(),
        "of cluster volumes",
    ),
}
# (command, flag) that hutch has otherwise.
OTHERWISE_IN = {
    ("events", "filter"): "`daemon=`, `network=` and `plugin=` match nothing: there are no such events",
    ("inspect", "type"): "container, image and volume",
    ("ps", "size"): "disk space, so that directories count",
    ("system df", "verbose"): "there is no build cache",
    ("system prune", "volumes"): "anonymous ones, as in docker since 23",
}


INTRODUCTION = """\
Made by `make docs` from hutch's own tables. *works*: as there. *differs*: and how. *refused*: known, and an error with
a hint. *no*: an unknown flag."""
ALONE = """\
hutch alone has `@host` as an image (the running system under a copy-on-write overlay), `run --explain` and
`run --dry-run`, and `hutch-oci`, a runtime for the other engines."""


def page() -> str:
    """docs/user/compared.md.

    Raises:
        ValueError: the tables above and hutch's own do not fit together.
    """
    commands = table(("command", "hutch", "remarks"), _commands())
    flags = table(("flag", "docker", "podman", "hutch", "remarks"), _flags())
    parts = ["# Compared with docker and podman", INTRODUCTION, "## Commands", commands, ALONE]
    others = table(("command", "docker's flag", "hutch", "remarks"), _other_flags())
    return "\n\n".join([*parts, "## Flags of `run`", flags, "## Flags of the other commands", others]) + "\n"


def _commands() -> list[tuple[str, ...]]:
    from hutch.cli import main
    from hutch.cli.refused import REFUSED

    rows = []
    for name in COMMANDS:
        own = main.ALIASES.get(name, name)
        if own in main.COMMANDS:
            below = "[below](#flags-of-run)" if name in ("create", "run") else ""
            state = "differs" if name in OTHERWISE else "works"
            rows.append((f"`{name}`", state, "; ".join(filter(None, (OTHERWISE.get(name, ""), below)))))
            continue
        if name not in REFUSED and name.partition(" ")[0] not in REFUSED:
            raise ValueError(f"neither hutch.cli.main nor hutch.cli.refused knows docker's command {name}")
        reason, hint = REFUSED.get(name) or REFUSED[name.partition(" ")[0]]
        rows.append((f"`{name}`", "refused", f"{reason}; {hint}"))
    return rows


def _other_flags() -> list[tuple[str, ...]]:
    """The flags of every command but run and create."""
    from hutch.cli import main

    rows = []
    for name, flags in COMMANDS.items():
        own = main.ALIASES.get(name, name)
        if own not in main.COMMANDS:
            continue
        known = {flag.name: flag for flag in main.load(own).flags}
        for flag in flags.split():
            state, remark = "works", ""
            if flag not in known:
                if flag not in MISSING:
                    raise ValueError(f"scripts/compared.py does not say why hutch {name} has no --{flag}")
                state, remark = "no", MISSING[flag]
            elif known[flag].text.startswith("not supported"):
                state, remark = "refused", known[flag].text.partition(": ")[2]
            elif (name, flag) in OTHERWISE_IN:
                state, remark = "differs", OTHERWISE_IN[name, flag]
            rows.append((f"`{name}`", f"`--{flag}`", state, remark))
    return rows


def _flags() -> list[tuple[str, ...]]:
    from hutch.cli.main import load
    from hutch.errors import HutchError

    known = {flag.name: flag for flag in load("run").flags}
    wrong = (
        (DIFFERS.keys() - known.keys())
        | (ABSENT.keys() & known.keys())
        | (DOCKER | PODMAN) - known.keys() - ABSENT.keys()
    )
    if wrong:
        raise ValueError(f"scripts/compared.py does not fit hutch run's flags: {', '.join(sorted(wrong))}")
    rows = []
    for name in sorted(DOCKER | PODMAN | known.keys()):
        state, remark = "works", ""
        if name in ABSENT:
            state, remark = "no", ABSENT[name]
        elif name in DIFFERS:
            state, remark = "differs", DIFFERS[name]
        elif known[name].text == "not supported in this version":
            try:
                known[name].convert("")
            except HutchError as refusal:
                state, remark = "refused", refusal.hint
        rows.append((f"`--{name}`", _mark(name in DOCKER), _mark(name in PODMAN), state, remark))
    return rows


def _mark(there: bool) -> str:
    return "yes" if there else ""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Rows in Markdown."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in [head, ("---",) * len(head), *rows]]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines)
