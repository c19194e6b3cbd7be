"""Images made by other tools (buildah, umoci, skopeo, mmdebstrap), as users' images are.

Each is built once and kept below ~/.cache/hutch-tests, in a directory named after what it is made from.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.files import CACHE, remove_tree
from tests.support.programs import run
from tests.support.registries import Registry

PREBUILT = os.environ.get("HUTCH_TESTS_PREBUILT", "")
"""A cache made elsewhere, taken as it is: a guest without network and without buildah."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass(frozen=True)
class Image:
    """An image on disk, in any form skopeo knows.

    Attributes:
        transport: "oci" (a layout and a tag) or "dir" (skopeo's own, for Docker's schema 2).
        path: the directory.
        tag: the name in the layout's index; empty for "dir".
        is_index: whether the tag names an index of several platforms.
    """

    transport: str
    path: str
    tag: str = ""
    is_index: bool = False

    @property
    def source(self) -> str:
        """What skopeo calls it."""
        return f"{self.transport}:{self.path}{':' if self.tag else ''}{self.tag}"

    def copy_to(self, destination: str, *options: str) -> None:
        """skopeo copy to "docker-archive:FILE:REF", "oci-archive:FILE", "dir:…" or "docker://…"."""
        everything = ["--all"] if self.is_index else []
        run(["skopeo", "copy", "--quiet", "--insecure-policy", *everything, *options, self.source, destination])

    def push(self, registry: Registry, name: str, *options: str) -> str:
        """Push to `registry` as `name` ("repository:tag"); returns the reference to pull.

        Options are skopeo's, such as "--format=v2s2" or "--dest-compress-format=zstd".
        """
        reference = registry.reference(name)
        self.copy_to(f"docker://{reference}", *registry.skopeo_credentials("dest"), *options)
        return reference

    def manifest(self) -> dict[str, Any]:
        """The manifest (or index) document, from the layout."""
        document: dict[str, Any] = json.loads(self.blob(self.digest))
        return document

    def config(self) -> dict[str, Any]:
        """The image configuration."""
        document: dict[str, Any] = json.loads(self.blob(self.manifest()["config"]["digest"]))
        return document

    @property
    def digest(self) -> str:
        """The digest the layout's index has for the tag."""
        with open(f"{self.path}/index.json", encoding="utf-8") as file:
            rows = json.load(file)["manifests"]
        for row in rows:
            if row.get("annotations", {}).get("org.opencontainers.image.ref.name") == self.tag:
                return str(row["digest"])
        raise AssertionError(f"{self.source} is not there")

    def blob(self, digest: str) -> bytes:
        """A blob of the layout."""
        with open(f"{self.path}/blobs/{digest.replace(':', '/')}", "rb") as file:
            return file.read()


def cached(name: str, recipe: str, make: Callable[[str], None]) -> str:
    """The directory `name` in the cache, made by `make(directory)` unless there is one from the same recipe.

    Two sessions do not make the same thing at once, and nobody sees a half-made one.
    """
    if PREBUILT:
        found = [
            entry
            for entry in os.listdir(PREBUILT)
            if entry.startswith(f"{name}-") and entry.count("-") == name.count("-") + 1
        ]
        return f"{PREBUILT}/{found[0]}"
    key = hashlib.sha256(f"{recipe}{inspect.getsource(make)}".encode()).hexdigest()[:16]
    os.makedirs(CACHE, mode=0o755, exist_ok=True)
    path = f"{CACHE}/{name}-{key}"
    with open(f"{CACHE}/{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(path):
            return path
        for stale in os.listdir(CACHE):
            if stale.startswith(f"{name}-") and not stale.removeprefix(f"{name}-").strip("0123456789abcdef"):
                remove_tree(f"{CACHE}/{stale}")
        scratch = tempfile.mkdtemp(prefix="making-", dir=CACHE)
        try:
            make(scratch)
            run(["chmod", "-R", "a+rX", scratch])  # tests of ordinary users read it, and some tools write 0600
            os.rename(scratch, path)
        except BaseException:
            remove_tree(scratch)
            raise
    return path


class Buildah:
    """buildah with storage of its own, no network, nothing it needs of the host changed.

    Args:
        directory: for its storage; removed by the caller.
    """

    def __init__(self, directory: str) -> None:
        self._argv = ["buildah", "--root", f"{directory}/root", "--runroot", f"{directory}/run"]
        self._argv += ["--storage-driver", "vfs"]

    def __call__(self, *argv: str) -> str:
        return run([*self._argv, *argv]).stdout.strip()


def busybox() -> Image:
    """A small image: busybox under all its names, /etc/passwd with root and app (1000), "sh" as command."""
    path = cached("busybox", _fingerprint(_busybox_tree, "busybox"), _make_busybox)
    return Image("oci", f"{path}/layout", "latest")


def busybox_schema2() -> Image:
    """The same image in Docker's format, schema 2."""

    def make(directory: str) -> None:
        busybox().copy_to(f"dir:{directory}/image", "--format=v2s2")

    return Image("dir", f"{cached('busybox-schema2', busybox().digest, make)}/image")


def multi_platform() -> Image:
    """An index for linux/amd64, linux/arm64/v8, linux/arm/v7 and linux/arm/v6; /etc/platform says which is which.

    The programs in all of them are this machine's, so each of them runs here.
    """
    path = cached("multi-platform", _fingerprint(_busybox_tree, "busybox"), _make_multi_platform)
    return Image("oci", f"{path}/layout", "latest", is_index=True)


def layered() -> Image:
    """Four layers by umoci with all that layers can say: see `_second_layer` to `_fourth_layer`. Needs root."""
    recipe = "".join([inspect.getsource(step) for step in (_second_layer, _third_layer, _repack)]) + busybox().digest
    path = cached("layered", recipe, _make_layered)
    return Image("oci", f"{path}/layout", "latest")


def debian(*packages: str) -> Image:
    """Debian (this host's release, minbase) and more packages, by mmdebstrap and buildah. Needs root."""

    def make(directory: str) -> None:
        archive = f"{directory}/root.tar"
        _bootstrap(archive, packages)
        with_buildah(directory, archive, [("Cmd", "bash")], f"{directory}/layout")
        os.unlink(archive)

    path = cached("-".join(["debian", *sorted(packages)]), f"{_release()} {sorted(packages)}", make)
    return Image("oci", f"{path}/layout", "latest")


def system(kind: str) -> Image:
    """A Debian that boots, with a command that is an init: "systemd" (with sshd) or "openrc". Needs root."""
    packages, command = SYSTEMS[kind]

    def make(directory: str) -> None:
        archive = f"{directory}/root.tar"
        _bootstrap(archive, packages, variant="essential")
        with_buildah(directory, archive, [("Cmd", command)], f"{directory}/layout")
        os.unlink(archive)

    path = cached(f"system-{kind}", f"{_release()} {packages} {command}", make)
    return Image("oci", f"{path}/layout", "latest")


SYSTEMS = {
    "systemd": (("systemd-sysv", "dbus", "openssh-server", "procps"), "/sbin/init"),
    "openrc": (("openrc",), "/sbin/openrc-init"),
}
SERVICES = {
    "nginx": [("cmd", 'nginx -g "daemon off;"'), ("port", "80"), ("stop-signal", "SIGQUIT")],
    "redis": [
        ("cmd", "redis-server --dir /data --protected-mode no --bind *"),
        ("user", "redis"),
        ("volume", "/data"),
        ("workingdir", "/data"),
    ],
    "postgres": [
        ("cmd", "database"),
        ("user", "postgres"),
        ("volume", "/var/lib/postgresql/data"),
        ("env", "PGDATA=/var/lib/postgresql/data"),
        ("stop-signal", "SIGINT"),
    ],
    "python": [("cmd", "python3 -u -m http.server 8000"), ("workingdir", "/srv"), ("stop-signal", "SIGINT")],
}
"""Images of one content; what buildah's config says of each."""

_DATABASE = """\
#!/bin/sh -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
[ -s "$PGDATA/PG_VERSION" ] || initdb --no-sync --auth=trust >/dev/null
exec postgres -c unix_socket_directories=/tmp "$@"
"""


def services() -> dict[str, Image]:
    """Debian with real programs in it, under a name for each: `SERVICES`. Needs root."""
    packages = ("nginx-light", "redis-server", "postgresql", "python3", "curl")

    def make(directory: str) -> None:
        archive, storage = f"{directory}/root.tar", f"{directory}/storage"
        _bootstrap(archive, packages, variant="essential")
        with open(f"{directory}/database", "w", encoding="ascii") as file:
            file.write(_DATABASE)
        buildah = Buildah(storage)
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, archive, "/")
        buildah("add", "--quiet", "--chmod=755", container, f"{directory}/database", "/usr/local/bin/database")
        os.mkdir(f"{directory}/logs")
        for name in ("access", "error"):
            os.symlink("/dev/stdout", f"{directory}/logs/{name}.log")
        buildah("add", "--quiet", container, f"{directory}/logs", "/var/log/nginx")
        for place, owner in (("/data", "redis"), ("/var/lib/postgresql/data", "postgres")):
            os.makedirs(f"{directory}/empty", exist_ok=True)
            buildah("add", "--quiet", f"--chown={owner}:{owner}", "--chmod=700", container, f"{directory}/empty", place)
        for name, config in SERVICES.items():
            options = [f"--{key}={value}" for key, value in config]
            buildah("config", "--user=", "--workingdir=/", "--volume=-", "--stop-signal=", *options, container)
            buildah("commit", "--quiet", container, f"oci:{directory}/layout:{name}")
        buildah("rm", container)
        remove_tree(storage)
        os.unlink(archive)

    path = cached("services", f"{_release()} {packages} {SERVICES} {_DATABASE}", make)
    return {name: Image("oci", f"{path}/layout", name) for name in SERVICES}


def _bootstrap(archive: str, packages: Sequence[str], variant: str = "minbase") -> None:
    """mmdebstrap into a tar file, from this machine's own package sources; "essential" has no apt and no documents."""
    sources = run(["apt-get", "indextargets", "--format", _SOURCE_LINE, "Created-By: Packages"]).stdout
    include = [f"--include={','.join(packages)}"] if packages else []
    lean = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    options = [f"--variant={variant}", *include, *(lean if variant == "essential" else [])]
    argv = ["mmdebstrap", "--mode=root", *options, _release(), archive, "-"]
    run(argv, input="\n".join(dict.fromkeys(sources.splitlines())) + "\n", timeout_s=600)


_SOURCE_LINE = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"


def with_buildah(directory: str, content: str, config: list[tuple[str, str]], layout: str) -> None:
    """One layer from a directory or tar file, by buildah.

    Args:
        directory: for buildah's storage while it works.
        content: the tree or archive that becomes /.
        config: buildah config's options without dashes, such as ("Cmd", "sh") or ("env", "A=b").
        layout: the OCI layout to write; its tag is "latest".
    """
    storage = f"{directory}/storage"
    buildah = Buildah(storage)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, content, "/")
    options = [f"--{key.lower()}={value}" for key, value in config]
    buildah("config", f"--env=PATH={PATH}", *options, container)
    buildah("commit", "--quiet", container, f"oci:{layout}:latest")
    buildah("rm", container)
    remove_tree(storage)


def _make_busybox(directory: str) -> None:
    tree = f"{directory}/tree"
    _busybox_tree(tree)
    with_buildah(directory, tree, [("Cmd", "sh"), ("Label", "org.example.made-by=buildah")], f"{directory}/layout")
    remove_tree(tree)


def _busybox_tree(tree: str) -> None:
    for path, mode in (("bin", 0o755), ("etc", 0o755), ("home/app", 0o755), ("root", 0o700), ("var", 0o755)):
        os.makedirs(f"{tree}/{path}", 0o755)
        os.chmod(f"{tree}/{path}", mode)
    os.mkdir(f"{tree}/tmp")
    os.chmod(f"{tree}/tmp", 0o1777)
    if os.geteuid() == 0:
        os.chown(f"{tree}/home/app", 1000, 1000)
    program = shutil.which("busybox") or ""
    shutil.copy(program, f"{tree}/bin/busybox")
    os.chmod(f"{tree}/bin/busybox", 0o755)
    for applet in run([program, "--list"]).stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{tree}/bin/{applet}")
    files = {
        "passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n",
        "group": "root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n",
        "shells": "/bin/sh\n",
    }
    for name, text in files.items():
        with open(f"{tree}/etc/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _make_multi_platform(directory: str) -> None:
    storage = f"{directory}/storage"
    buildah = Buildah(storage)
    tree = f"{directory}/tree"
    _busybox_tree(tree)
    buildah("manifest", "create", "several")
    for arch, variant in (("amd64", ""), ("arm64", "v8"), ("arm", "v7"), ("arm", "v6")):
        platform = "/".join(filter(None, ("linux", arch, variant)))
        with open(f"{tree}/etc/platform", "w", encoding="ascii") as file:
            file.write(f"{platform}\n")
        container = buildah("from", f"--platform={platform}", "scratch")
        buildah("add", "--quiet", container, tree, "/")
        chosen = [f"--arch={arch}", *([f"--variant={variant}"] if variant else [])]
        buildah("config", f"--env=PATH={PATH}", "--cmd=cat /etc/platform", *chosen, container)
        image = buildah("commit", "--quiet", container)
        buildah("manifest", "add", *chosen, "several", image)
    buildah("manifest", "push", "--quiet", "--all", "several", f"oci:{directory}/layout:latest")
    remove_tree(storage)
    remove_tree(tree)


def _make_layered(directory: str) -> None:
    layout = f"{directory}/layout"
    shutil.copytree(busybox().path, layout)
    _repack(directory, layout, _second_layer)
    _repack(directory, layout, _third_layer)
    fresh = f"{directory}/fresh"
    os.mkdir(fresh)
    with open(f"{fresh}/new", "w", encoding="ascii") as file:
        file.write("new\n")
    run(["umoci", "insert", "--image", f"{layout}:latest", "--opaque", fresh, "/opaque"])
    remove_tree(fresh)
    run(["umoci", "gc", "--layout", layout])


def _repack(directory: str, layout: str, change: Callable[[str], None]) -> None:
    bundle = f"{directory}/bundle"
    run(["umoci", "unpack", "--image", f"{layout}:latest", bundle])
    change(f"{bundle}/rootfs")
    run(["umoci", "repack", "--image", f"{layout}:latest", bundle])
    remove_tree(bundle)


def _second_layer(root: str) -> None:
    """Files, links of both kinds, modes, owners, times, extended attributes, odd and long names, a device, a fifo."""
    os.makedirs(f"{root}/data/sub")
    os.makedirs(f"{root}/opaque/deep")
    names = [
        "data/one",
        "data/gone",
        "data/sub/x",
        "data/sub/y",
        "opaque/old",
        "opaque/deep/old",
        "data/leading space ",
    ]
    for name in names:
        with open(f"{root}/{name}", "w", encoding="ascii") as file:
            file.write(f"{name}\n" * 50)
    os.link(f"{root}/data/one", f"{root}/data/two")
    os.link(f"{root}/data/one", f"{root}/data/sub/three")
    os.symlink("../one", f"{root}/data/sub/relative")
    os.symlink("/data/one", f"{root}/data/absolute")
    os.symlink("nowhere", f"{root}/data/dangling")
    os.mkfifo(f"{root}/data/fifo", 0o640)
    os.mknod(f"{root}/data/null", 0o020666, os.makedev(1, 3))
    os.chmod(f"{root}/data/sub/y", 0o4711)
    os.mkdir(f"{root}/data/sticky")
    os.chmod(f"{root}/data/sticky", 0o3770)
    os.chown(f"{root}/data/sticky", 1000, 2000)
    os.chown(f"{root}/data/sub/x", 1000, 1000)
    os.lchown(f"{root}/data/dangling", 7, 8)
    os.setxattr(f"{root}/data/one", "user.colour", b"blue\0green")
    os.setxattr(f"{root}/data/sub", "user.kind", b"directory")
    os.setxattr(f"{root}/bin/busybox", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    directory = "deep" * 30
    os.makedirs(f"{root}/data/{directory}/{directory}")
    with open(f"{root}/data/{directory}/{directory}/{'n' * 200}", "w", encoding="ascii") as file:
        file.write("long\n")
    with open(os.fsencode(root) + b"/data/latin-\xe4\xff", "wb") as raw:
        raw.write(b"bytes\n")
    with open(f"{root}/data/schön", "w", encoding="utf-8") as file:
        file.write("schön\n")
    with open(f"{root}/data/sparse", "wb") as raw:
        raw.write(b"begin")
        raw.seek(1 << 20)
        raw.write(b"end")
    os.utime(f"{root}/data/one", ns=(1_000_000_000_123_456_789, 1_000_000_000_123_456_789))
    os.utime(f"{root}/data/sub", ns=(0, 0))
    os.utime(f"{root}/data/dangling", ns=(86_400_000_000_000, 86_400_000_000_000), follow_symlinks=False)


def _third_layer(root: str) -> None:
    """Removals (a file, a directory, one name of a hard link), a file that becomes a directory and the reverse."""
    os.unlink(f"{root}/data/gone")
    os.unlink(f"{root}/data/two")
    os.unlink(f"{root}/data/sub/x")
    os.unlink(f"{root}/data/absolute")
    os.mkdir(f"{root}/data/absolute")
    os.rmdir(f"{root}/data/sticky")
    with open(f"{root}/data/sticky", "w", encoding="ascii") as file:
        file.write("was a directory\n")
    os.chmod(f"{root}/data/sub", 0o700)


def _fingerprint(recipe: Callable[..., object], program: str) -> str:
    with open(shutil.which(program) or "/dev/null", "rb") as file:
        return inspect.getsource(recipe) + hashlib.file_digest(file, "sha256").hexdigest()


def _release() -> str:
    """The code name of the Debian or Ubuntu release this is."""
    with open("/etc/os-release", encoding="utf-8") as file:
        rows = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return rows.get("VERSION_CODENAME", "bookworm").strip('"')


def found(program: str) -> bool:
    """Whether a program is installed."""
    return shutil.which(program) is not None


def is_static(program: str) -> bool:
    """Whether a program needs no loader; images from scratch have none."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return "not a dynamic executable" in out.stdout + out.stderr


if __name__ == "__main__":  # make the ones a guest without these tools needs
    for ready in (busybox, busybox_schema2, multi_platform, layered):
        print(ready().source)
    if found("mmdebstrap") and os.geteuid() == 0:
        print(system("systemd").source)
