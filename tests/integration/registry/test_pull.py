"""Pulls from real registries (Debian's docker-registry) of images that other tools made, and from a hostile one."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest

from hutch.errors import (
    DigestMismatch,
    HutchError,
    ImageNotFound,
    InvalidConfig,
    NotSupported,
    RegistryUnavailable,
    Unauthorized,
)
from hutch.image import platform as platforms
from hutch.image.content import ContentStore
from hutch.image.credentials import Credentials, CredentialStore
from hutch.image.progress import Progress
from hutch.image.pull import pull, pull_all_tags
from hutch.image.reference import Reference
from hutch.image.registries import Registries
from hutch.image.registry import login, logout
from hutch.image.response import Patience
from hutch.image.store import ImageStore
from hutch.image.transport import Transport
from hutch.snapshot.choose import choose
from tests.integration.registry.hostile import Answer, ImageServer, Server, serving
from tests.support import images, registries
from tests.support.evil import OCI_INDEX, OCI_MANIFEST, EvilImage, Layer, digest_of
from tests.support.programs import free_port

pytestmark = pytest.mark.requires("root")

QUICK = Patience(connect_s=2, headers_s=1, read_s=1, document_s=2, attempts=3, backoff_s=0.01, most_wait_s=0.2)
SECRET = "marker-secret-4711"


class Recorder(Progress):
    """What a pull told."""

    def __init__(self):
        self.phases = {}
        self.warnings = []
        self.updated = None

    def layer(self, digest, phase, done, total):
        seen = self.phases.setdefault(digest, [])
        if not seen or seen[-1] != phase:
            seen.append(phase)
        assert 0 <= done <= total

    def warning(self, text):
        self.warnings.append(text)

    def finished(self, reference, digest, *, updated):
        self.updated = updated


class Host:
    """A store with everything a pull needs."""

    def __init__(self, root, credentials=None):
        self.root = root
        self.snapshots, _ = choose(root)
        self.content = ContentStore(f"{root}/content")
        self.store = ImageStore(self.content, layers=self.snapshots)
        self.credentials = CredentialStore(credentials or f"{root}/no-config.json", search_path="")

    def pull(self, name, **options):
        settings = options.pop("registries", None) or Registries()
        transport = Transport(settings, patience=QUICK)
        self.progress = Recorder()
        try:
            return pull(
                Reference.parse(name),
                store=self.store,
                layers=self.snapshots,
                registries=settings,
                credentials=self.credentials,
                progress=self.progress,
                transport=transport,
                **options,
            )
        finally:
            transport.close()

    def file(self, image, path):
        """The bytes of a file of an image's topmost layer."""
        with open(f"{self.root}/layers/{image.chain_ids[-1].replace(':', '-')}/diff/{path}", "rb") as file:
            return file.read()

    def leftovers(self):
        """Partial blobs, locks, leases, staged layers."""
        found = []
        for directory in ("content/ingest", "content/leases", "tmp"):
            path = f"{self.root}/{directory}"
            found += os.listdir(path) if os.path.isdir(path) else []
        return found

    def is_empty(self):
        return not list(self.content.digests()) and not self.snapshots.layers() and not self.store.images()


@pytest.fixture
def host(tmp_root):
    return Host(tmp_root.data)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with registries.plain(str(tmp_path_factory.mktemp("registry"))) as running:
        yield running


# -- images of other tools ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [[], ["--format=v2s2"], ["--dest-compress-format=zstd"]], ids=["oci", "v2s2", "zstd"]
)
def test_an_image_of_buildah_is_pulled(host, registry, options):
    name = images.busybox().push(registry, f"busybox:{len(options)}{''.join(options)[-4:]}", *options)
    image = host.pull(name)
    assert host.progress.updated
    assert [phases[-1] for phases in host.progress.phases.values()] == ["complete"]
    assert host.file(image, "etc/shells") == b"/bin/sh\n"
    assert image.config.config.cmd == ("sh",)
    (digest,) = image.digests
    assert name.rpartition(":")[0] in str(digest)

    again = host.pull(name)
    assert again == image
    assert host.progress.updated is False
    assert list(host.progress.phases.values()) == [["exists"]]
    assert host.pull(str(digest)).id == image.id
    assert host.leftovers() == []


def test_other_tools_read_the_store(host, registry):
    image = host.pull(images.busybox().push(registry, "busybox:read"))
    source = f"oci:{host.content.root}:{image.references[0]}"
    done = subprocess.run(["skopeo", "inspect", "--raw", source], capture_output=True, check=True)
    assert digest_of(done.stdout) == image.descriptor.digest


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, str(platforms.host())),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
    ],
)
def test_the_platform_is_chosen(host, registry, asked, found):
    name = images.multi_platform().push(registry, "multi:latest")
    image = host.pull(name, platform=platforms.parse(asked) if asked else None)
    assert host.file(image, "etc/platform").decode().strip() == found
    assert [digest.digest for digest in image.digests] == [images.multi_platform().digest]


def test_a_platform_that_is_not_there_is_named(host, registry):
    name = images.multi_platform().push(registry, "multi:latest")
    with pytest.raises(ImageNotFound, match="no manifest for platform linux/s390x") as caught:
        host.pull(name, platform=platforms.parse("linux/s390x"))
    assert "linux/arm/v7" in caught.value.hint
    single = EvilImage([Layer().file("a")], config_document={"architecture": "s390x"}).push(registry, "single:1")
    with pytest.raises(ImageNotFound, match="its platform is linux/s390x"):
        host.pull(single, platform=platforms.parse("linux/amd64"))
    assert host.pull(single).config.architecture == "s390x"
    assert "its platform is linux/s390x" in host.progress.warnings[0]


def test_all_tags(host, registry):
    for tag in ("one", "two", "three"):
        EvilImage([Layer().file(tag)]).push(registry, f"several:{tag}")
    pulled = pull_all_tags(
        Reference.parse(registry.reference("several")),
        store=host.store,
        layers=host.snapshots,
        credentials=host.credentials,
    )
    assert sorted(str(image.references[0].tag) for image in pulled) == ["one", "three", "two"]
    with pytest.raises(ImageNotFound):
        pull_all_tags(
            Reference.parse(registry.reference("nothing")),
            store=host.store,
            layers=host.snapshots,
            credentials=host.credentials,
        )


def test_what_is_not_there_is_said(host, registry):
    with pytest.raises(ImageNotFound, match="not found"):
        host.pull(registry.reference("nothing:latest"))
    with pytest.raises(ImageNotFound):
        host.pull(registry.reference("nothing@sha256:" + "0" * 64))
    assert host.is_empty()


def test_a_mirror_is_asked_first_and_may_fail(host, registry):
    name = Reference.parse("registry.example/mirrored:1")
    EvilImage([Layer().file("a", b"mirrored")]).push(registry, "mirrored:1")
    settings = Registries(mirrors={"registry.example": (f"127.0.0.1:{free_port()}", registry.host)})
    image = host.pull(str(name), registries=settings)
    assert image.references == (name,)
    assert host.file(image, "a") == b"mirrored"
    assert "connection refused" in host.progress.warnings[0]


def test_the_empty_image_and_one_layer_twice(host, registry):
    empty = host.pull(EvilImage([]).push(registry, "empty:1"))
    assert empty.chain_ids == ()
    same = Layer().file("a", b"same")
    twice = host.pull(EvilImage([same, same]).push(registry, "twice:1"))
    assert len(set(twice.chain_ids)) == 2
    assert twice.manifest.layers[0] == twice.manifest.layers[1]


# -- credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [registries.with_passwords, registries.with_tokens])
def test_login_then_pull_then_logout(tmp_root, tmp_path, kind):
    with kind(str(tmp_path)) as registry:
        if registry.tokens:
            argv = ["skopeo", "copy", "--quiet", "--insecure-policy", images.busybox().source]
            argv += [f"docker://{registry.reference('private/app:1')}", *registry.skopeo_credentials("dest")]
            subprocess.run(argv, check=True)
            name = registry.reference("private/app:1")
        else:
            name = images.busybox().push(registry, "private/app:1")
        host = Host(tmp_root.data, f"{tmp_path}/home/config.json")
        with pytest.raises(Unauthorized):
            host.pull(name)
        assert host.is_empty()
        transport = Transport(Registries(), patience=QUICK)
        with pytest.raises(Unauthorized, match="wrong user name or password") as caught:
            login(registry.host, Credentials("tester", SECRET), transport=transport, store=host.credentials)
        assert SECRET not in str(caught.value)
        assert not os.path.exists(host.credentials.path)
        right = Credentials(registry.username, registry.password)
        login(registry.host, right, transport=transport, store=host.credentials)
        transport.close()
        assert host.pull(name).references[0].path == "private/app"
        if registry.tokens:
            kept = host.credentials.get(registry.host)
            assert (kept.username, kept.password) == ("", "")
            assert kept.identity_token
        assert logout(registry.host, store=host.credentials)
        with pytest.raises(Unauthorized):
            Host(f"{tmp_root.base}/state", f"{tmp_path}/home/config.json").pull(name)


def test_anonymous_tokens_and_tokens_that_expire(tmp_root, tmp_path):
    with registries.with_tokens(str(tmp_path)) as registry:
        argv = ["skopeo", "copy", "--quiet", "--insecure-policy", images.busybox().source]
        argv += [f"docker://{registry.reference('public/app:1')}", *registry.skopeo_credentials("dest")]
        subprocess.run(argv, check=True)
        registry.tokens.requests.clear()
        registry.tokens.fail_next = [503, 429]
        host = Host(tmp_root.data)
        host.pull(registry.reference("public/app:1"))
        asked = [request for request in registry.tokens.requests if request.parameters.get("scope")]
        assert len(asked) == 3  # two failures, then one token for manifest, configuration and layer
        assert asked[0].parameters["scope"] == ["repository:public/app:pull"]
        assert not any(request.authorization for request in registry.tokens.requests)


def test_x26_a_token_that_expires_meanwhile_is_renewed(host):
    image = EvilImage([Layer().file("a", os.urandom(1000)), Layer().file("b", os.urandom(1000))])
    issued, used = [], set()

    def special(request):
        if request.path.startswith("/token"):
            issued.append(1)
            return Answer(body=b'{"token":"t%d"}' % len(issued))
        if request.authorization in {"", *used}:
            challenge = f'Bearer realm="http://{server.host}/token",service="s"'
            return Answer(401, {"WWW-Authenticate": challenge})
        used.add(request.authorization)  # each token is good for one request
        return None

    with serving(image, special) as server:
        host.pull(f"{server.host}/app:1", downloads=1)
    assert len(issued) == 4


def test_tls_with_a_configured_authority(host, tmp_path):
    with registries.with_tls(str(tmp_path)) as registry:
        image = EvilImage([Layer().file("a", b"tls")])
        for digest, data in image.blobs.items():
            registry.push_blob("app", data, digest)
        registry.push_manifest("app", "1", image.manifest, OCI_MANIFEST)
        name = registry.reference("app:1")
        with pytest.raises(HutchError, match="certificate not accepted"):
            host.pull(name)
        pulled = host.pull(name, registries=Registries(ca={registry.host: registry.ca}))
        assert host.file(pulled, "a") == b"tls"


def test_g10_no_secret_is_shown_anywhere(tmp_root, tmp_path, capfd, caplog):
    caplog.set_level(1)
    config = tmp_path / "config.json"

    def special(request):
        if request.path.startswith("/token"):
            return Answer(401, body=json.dumps({"details": "no"}).encode())
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})

    with serving(None, special) as server:
        auth = base64.b64encode(f"tester:{SECRET}".encode()).decode()
        config.write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        host = Host(tmp_root.data, str(config))
        with pytest.raises(Unauthorized) as caught:
            host.pull(f"{server.host}/app:1")
        assert auth in server.asked("/token")[0].authorization
    text = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    text += repr(host.credentials.get(server.host)) + str(host.progress.warnings)
    for directory, _, names in os.walk(tmp_root.base):
        for each in names:
            with open(f"{directory}/{each}", "rb") as file:
                text += file.read().decode("latin-1")
    assert SECRET not in text
    assert auth not in text


# -- integrity ---------------------------------------------------------------------------------


def flip(data):
    return data[:-1] + bytes([data[-1] ^ 1])


LAYERS = EvilImage([Layer().file("a", os.urandom(5000)), Layer("").file("b", os.urandom(5000))])


@pytest.mark.parametrize(
    "change", [flip, lambda d: d + b"\0", lambda d: d[:-1], lambda d: b""], ids=["flip", "longer", "shorter", "empty"]
)
@pytest.mark.parametrize("which", ["config", "gzip layer", "plain layer", "manifest"])
def test_g5_a_changed_object_is_refused(host, which, change):
    digest = {
        "config": digest_of(LAYERS.config),
        "gzip layer": LAYERS.layers[0].digest,
        "plain layer": LAYERS.layers[1].digest,
        "manifest": digest_of(LAYERS.manifest),
    }[which]
    with serving(LAYERS) as server:
        data, kind = server.handler.documents[digest]
        server.handler.documents[digest] = (change(data), kind)
        name = f"{server.host}/app@{digest}" if which == "manifest" else f"{server.host}/app:1"
        with pytest.raises(DigestMismatch):
            host.pull(name)
    assert not host.store.images()
    host.store.prune()
    assert host.leftovers() == []
    assert host.is_empty()


def test_g5_a_manifest_that_is_not_what_its_header_says(host):
    def special(request):
        if "/manifests/" in request.path:
            return Answer(
                headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": "sha256:" + "0" * 64},
                body=LAYERS.manifest,
            )
        return None

    with serving(LAYERS, special) as server, pytest.raises(DigestMismatch):
        host.pull(f"{server.host}/app:1")


def test_g5_wrong_diff_ids_sizes_and_counts_are_refused(host):
    layer = Layer().file("a", b"a")
    other = "sha256:" + "1" * 64
    for image in (
        EvilImage([layer], config_document={"rootfs": {"type": "layers", "diff_ids": [other]}}),
        EvilImage([layer], config_document={"rootfs": {"type": "layers", "diff_ids": [layer.diff_id] * 2}}),
        EvilImage([layer], descriptors=[{"size": len(layer.blob) + 1}]),
        EvilImage([layer], descriptors=[{"size": len(layer.blob) - 1}]),
    ):
        with serving(image) as server, pytest.raises((DigestMismatch, InvalidConfig)):
            host.pull(f"{server.host}/app:1")
        host.store.prune()
        assert host.is_empty()


def test_f11_an_image_that_claims_anothers_layers_is_refused(host):
    victim = EvilImage([Layer().file("a", b"victim")])
    with serving(victim) as server:
        host.pull(f"{server.host}/victim:1")
    liar = EvilImage(
        [Layer().file("a", b"liar")],
        config_document={"rootfs": {"type": "layers", "diff_ids": [victim.layers[0].diff_id]}},
    )
    with serving(liar) as server, pytest.raises(DigestMismatch, match="diff id"):
        host.pull(f"{server.host}/liar:1")
    assert len(host.store.images()) == 1
    repacked = EvilImage([Layer("zstd").file("a", b"victim")])
    with serving(repacked) as server:  # the same layer compressed in another way is what it claims to be
        image = host.pull(f"{server.host}/repacked:1")
    assert host.progress.phases[repacked.layers[0].digest][-1] == "exists"
    assert host.file(image, "a") == b"victim"


BROKEN = {
    "empty": b"",
    "gzip head": b"\x1f\x8b",
    "gzip": Layer().file("a", os.urandom(9000)).blob[:-20],
    "zstd": Layer("zstd").file("a", os.urandom(9000)).blob[:-20],
    "xz": b"\xfd7zXZ\0garbage",
    "garbage": b"garbage" * 300,
}


@pytest.mark.parametrize("blob", BROKEN.values(), ids=BROKEN)
def test_d9_a_broken_layer_fails_and_the_next_pull_works(host, blob):
    good = EvilImage([Layer().file("a", b"good")])
    bad = EvilImage([Layer().file("a", b"good")], descriptors=[{"digest": digest_of(blob), "size": len(blob)}])
    with serving(bad, extra={digest_of(blob): (blob, "")}) as server:
        begin = time.monotonic()
        with pytest.raises(HutchError):
            host.pull(f"{server.host}/bad:1")
        assert time.monotonic() - begin < 10
    host.store.prune()
    assert host.is_empty()
    with serving(good) as server:
        assert host.file(host.pull(f"{server.host}/good:1"), "a") == b"good"


def index(*children, **fields):
    rows = [{"mediaType": kind, "digest": digest_of(data), "size": len(data), **more} for data, kind, more in children]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows, **fields}).encode()


def serve_index(tagged, *others):
    server = Server(ImageServer(LAYERS, extra={digest_of(data): (data, kind) for data, kind in others}))
    server.handler.tagged, server.handler.tagged_type = tagged, OCI_INDEX
    return server


def test_g7_deep_wide_and_circular_indexes_end(host):
    nested, chain = LAYERS.manifest, [(LAYERS.manifest, OCI_MANIFEST)]
    for depth in range(1, 7):
        nested = index((nested, chain[-1][1], {}))
        chain.append((nested, OCI_INDEX))
        with serve_index(nested, *chain) as server:
            if depth <= 4:
                host.pull(f"{server.host}/app:{depth}")
            else:
                with pytest.raises(InvalidConfig, match="nested deeper than 4"):
                    host.pull(f"{server.host}/app:{depth}")
            assert len(server.asked("/manifests/")) <= 5
    wide = [
        (index((b"%d" % n, OCI_MANIFEST, {"platform": {"os": "plan9", "architecture": "x"}})), OCI_INDEX)
        for n in range(50)
    ]
    with serve_index(index(*((data, kind, {}) for data, kind in wide)), *wide) as server:
        with pytest.raises(InvalidConfig, match="more than 16"):
            host.pull(f"{server.host}/app:wide")
        assert len(server.asked("/manifests/")) <= 18


def test_g6_children_that_are_not_what_the_index_says(host):
    for more in ({"size": 5}, {"mediaType": OCI_INDEX}):
        evil = index((LAYERS.manifest, OCI_MANIFEST, more))
        with serve_index(evil) as server, pytest.raises((DigestMismatch, InvalidConfig)):
            host.pull(f"{server.host}/app:1")
    assert host.is_empty()


def test_g4_a_digest_that_is_none_asks_for_nothing(host):
    for digest in ("sha256:../../../../v2/other/blobs/x", "sha256:" + "F" * 64, "", "sha256"):
        image = EvilImage([Layer().file("a")], descriptors=[{"digest": digest}])
        with serving(image) as server:
            with pytest.raises(InvalidConfig, match="digest"):
                host.pull(f"{server.host}/app:1")
            assert len(server.requests) == 1
    assert host.is_empty()


def test_g2_foreign_layers_are_not_fetched(host):
    with Server(lambda request: Answer(body=b"x")) as elsewhere:
        foreign = {
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "urls": [f"http://{elsewhere.host}/"],
        }
        for change in (foreign, {"urls": [f"http://{elsewhere.host}/"]}):
            image = EvilImage([Layer().file("a", b"here")], descriptors=[change])
            with serving(image) as server:
                if "mediaType" in change:
                    with pytest.raises(NotSupported, match="foreign"):
                        host.pull(f"{server.host}/app:1")
                else:
                    host.pull(f"{server.host}/app:1")
        assert elsewhere.connections == 0


# -- faults ------------------------------------------------------------------------------------

BIG = EvilImage([Layer("").file("big", os.urandom(3 << 20)), Layer("").file("other", os.urandom(1 << 20))])


@pytest.mark.parametrize("at", [1, 65536, 3_000_000])
def test_x26_a_reset_at_byte_n_is_resumed(host, at):
    broken = set()

    def special(request):
        digest = request.path.rpartition("/")[2]
        data = BIG.blobs.get(digest)
        if "/blobs/" in request.path and data and len(data) > at and digest not in broken:
            broken.add(digest)
            return Answer(body=data[:at], length=len(data), reset=True)
        return None

    with serving(BIG, special) as server:
        image = host.pull(f"{server.host}/app:1")
        assert len(broken) >= 1
    assert len(host.file(image, "other")) == 1 << 20


@pytest.mark.parametrize("end", ["KILL", "INT"])
def test_x26_a_pull_whose_process_ended_goes_on_where_it_was(host, end):
    layer = BIG.layers[0]
    stall = threading.Event()

    def special(request):
        if request.path.endswith(layer.digest) and not stall.is_set():

            def half(used):
                used.sendall(layer.blob[: 2 << 20])
                stall.wait(20)

            return Answer(headers={"Content-Length": str(len(layer.blob))}, raw=half)
        return None

    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.integration.registry.test_pull import Host\n"
        "Host(sys.argv[1]).pull(sys.argv[2])"
    )
    with serving(BIG, special) as server:
        argv = [sys.executable, "-c", code, host.root, f"{server.host}/app:1"]
        child = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while host.content.partial_size(layer.digest) < 2 << 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(getattr(signal, f"SIG{end}"))
        asked = time.monotonic()
        _, said = child.communicate(timeout=10)
        assert time.monotonic() - asked < 0.7  # less than any timeout of a socket
        assert child.returncode != 0
        assert end == "KILL" or "KeyboardInterrupt" in said
        stall.set()
        assert host.content.partial_size(layer.digest) == 2 << 20
        assert not host.store.images()
        server.requests.clear()
        host.pull(f"{server.host}/app:1")
        (resumed,) = server.asked(layer.digest)
        assert resumed.range_from == 2 << 20
    host.store.collect()  # takes away the lease of the process that was killed
    assert host.leftovers() == []


def test_x18_two_pulls_of_one_image_download_once(host):
    with serving(BIG) as server:
        results = []

        def work():
            results.append(Host(host.root).pull(f"{server.host}/app:1").id)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(results)) == 1
        assert len(results) == 4
        for layer in BIG.layers:
            assert len(server.asked(layer.digest)) == 1


def test_x18_pull_against_remove_and_collect(host):
    names = []
    with serving(BIG) as server:
        failures = []

        def work(number):
            own = Host(host.root)
            for _ in range(4):
                try:
                    image = own.pull(f"{server.host}/app:{number}")
                    assert own.snapshots.layers()
                    assert image.id
                    own.store.remove(f"{server.host}/app:{number}")
                except Exception as error:
                    failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        image = host.pull(f"{server.host}/app:1")
        names.append(image)
        assert len(host.file(image, "other")) == 1 << 20
    host.store.remove(image.id, force=True)
    assert host.is_empty()


def test_x10_a_full_disk_says_so_and_gives_the_space_back(tmp_root):
    disk = f"{tmp_root.base}/disk"
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    try:
        small = Host(disk)
        with serving(BIG) as server:
            with pytest.raises(HutchError, match="no space left on device"):
                small.pull(f"{server.host}/app:1")
            used = os.statvfs(disk)
            assert (used.f_blocks - used.f_bfree) * used.f_frsize < 1 << 20
            assert not server.asked(BIG.layers[0].digest)  # it was seen before, not in the middle
            subprocess.run(["mount", "-o", "remount,size=7m", disk], check=True)
            with pytest.raises(HutchError, match="no space left on device"):  # the blobs fit, unpacked they do not
                small.pull(f"{server.host}/app:1")
            assert not small.store.images()
            subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
            small.pull(f"{server.host}/app:1")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_x26_a_registry_that_is_away(host):
    with pytest.raises(RegistryUnavailable, match="connection refused"):
        host.pull("127.0.0.1:1/app:1")
    assert host.is_empty()


@pytest.mark.parametrize("document", ["manifest", "config"])
def test_broken_json_is_named(host, document):
    for data in (b"{", b"[]", b'{"a":1,"a":2}', b"\xff"):
        image = EvilImage([Layer().file("a")])
        if document == "config":
            image.config = data
            image.manifest_document["config"] |= {"digest": digest_of(data), "size": len(data)}
            image.manifest = json.dumps(image.manifest_document).encode()
        else:
            image.manifest = data
        with serving(image) as server, pytest.raises(InvalidConfig, match=document):
            host.pull(f"{server.host}/app:1")
    host.store.prune()
    assert host.is_empty()
