"""Requests to registries that misbehave: where they go, what they carry, when they end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time

import pytest

from hutch.errors import (
    BlobNotFound,
    DigestMismatch,
    HutchError,
    InvalidArgument,
    RegistryUnavailable,
    Unauthorized,
    Unavailable,
)
from hutch.image import digest as digests
from hutch.image import hosts
from hutch.image.auth import Authorizer
from hutch.image.content import ContentStore
from hutch.image.credentials import Credentials
from hutch.image.manifest import OCI_LAYER, Descriptor
from hutch.image.registries import Registries
from hutch.image.registry import Repository
from hutch.image.response import Cancelled, Origin, Patience
from hutch.image.transport import Transport
from tests.integration.registry.hostile import Answer, ImageServer, Server
from tests.support.registries import make_certificate

QUICK = Patience(connect_s=2, headers_s=0.5, read_s=0.5, document_s=0.8, attempts=3, backoff_s=0.01, most_wait_s=0.2)
SECRET = "marker-secret-4711"
LOGIN = Credentials("tester", SECRET)
DATA = os.urandom(1 << 20) * 2
BLOB = Descriptor(media_type=OCI_LAYER, digest=digests.of(DATA), size=len(DATA))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for localhost and 127.0.0.1, its key, and the authority that signed it."""
    directory = str(tmp_path_factory.mktemp("tls"))
    ca_key, ca = make_certificate(directory, "authority")
    key, certificate = make_certificate(directory, "localhost", signer=(ca_key, ca))
    return key, certificate, ca


@pytest.fixture
def store(tmp_path):
    return ContentStore(str(tmp_path / "content"))


@contextlib.contextmanager
def transport(registries=None, **options):
    made = Transport(registries or Registries(), patience=options.pop("patience", QUICK), **options)
    try:
        yield made
    finally:
        made.close()


def get(shared, url, **options):
    with shared.request("GET", url, **options) as response:
        return response.status, response.read(1 << 20, "answer")


# -- G1: TLS or nothing ------------------------------------------------------------------------


def test_g1_a_name_that_resolves_to_loopback_is_spoken_to_with_tls_only():
    with Server(ImageServer()) as server:
        dialled = []

        def resolver(name, port):
            dialled.append(name)
            return ["127.0.0.1"]

        with transport(resolver=resolver) as shared:
            origin = shared.origin(f"registry.example:{server.port}")
            assert origin.scheme == "https"
            with pytest.raises(RegistryUnavailable, match="TLS handshake failed"):
                get(shared, f"{origin}/v2/")
        assert server.requests == []
        assert server.connections == QUICK.attempts
        assert set(dialled) == {"registry.example"}


def test_g1_a_refused_port_is_not_tried_without_tls():
    with Server(ImageServer()) as plain:

        def resolver(name, port):
            return ["127.0.0.1"]

        with transport(resolver=resolver) as shared:
            refused = free_port()
            with pytest.raises(RegistryUnavailable, match="connection refused"):
                get(shared, f"{shared.origin(f'registry.example:{refused}')}/v2/")
        assert plain.connections == 0


def test_g1_the_address_that_is_judged_is_the_one_dialled():
    with Server(ImageServer()) as server:
        calls = []

        def resolver(name, port):
            calls.append(name)
            return ["192.0.2.1"]  # a resolver that lies about localhost is not asked

        with transport(resolver=hosts.resolve) as shared:
            assert hosts.resolve("localhost", 1) == ("127.0.0.1", "::1")
            origin = shared.origin(f"localhost:{server.port}")
            assert origin.scheme == "http"
            assert get(shared, f"{origin}/v2/")[0] == 200
        assert calls == []


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_g1_loopback_with_tls_is_spoken_to_with_tls(certificates, name):
    key, certificate, ca = certificates
    with Server(ImageServer(), tls=(key, certificate)) as server:
        host = f"{name}:{server.port}"
        with transport(Registries(ca={host: ca})) as shared:
            assert shared.origin(host).scheme == "https"
            assert get(shared, f"https://{host}/v2/")[0] == 200
        with transport() as shared, pytest.raises(Unavailable, match="certificate not accepted"):
            get(shared, f"{shared.origin(host)}/v2/")
        assert len(server.requests) == 1


def test_g1_only_a_configured_host_may_have_any_certificate_or_none(certificates):
    key, certificate, _ = certificates

    def resolver(name, port):
        return ["127.0.0.1"]

    with Server(ImageServer(), tls=(key, certificate)) as secure, Server(ImageServer()) as plain:
        insecure = frozenset({f"registry.example:{secure.port}", "other.example"})
        with transport(Registries(insecure=insecure), resolver=resolver) as shared:
            assert get(shared, f"{shared.origin(f'registry.example:{secure.port}')}/v2/")[0] == 200
            origin = shared.origin(f"other.example:{plain.port}")
            assert origin.scheme == "http"
            assert get(shared, f"{origin}/v2/")[0] == 200


def test_g1_a_wrong_name_in_a_certificate_is_refused(certificates):
    key, certificate, ca = certificates
    with Server(ImageServer(), tls=(key, certificate)) as server:
        host = f"registry.example:{server.port}"
        registries, match = Registries(ca={host: ca}), r"certificate not accepted.*registry\.example"
        with (
            transport(registries, resolver=lambda *_: ["127.0.0.1"]) as shared,
            pytest.raises(Unavailable, match=match),
        ):
            get(shared, f"https://{host}/v2/")


def test_a_name_nobody_knows_is_not_waited_for():
    def resolver(name, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    match = "name or service not known"
    patience = Patience(backoff_s=60)
    with transport(resolver=resolver, patience=patience) as shared, pytest.raises(RegistryUnavailable, match=match):
        get(shared, "https://registry.example/v2/")


# -- proxies -----------------------------------------------------------------------------------


@contextlib.contextmanager
def proxy():
    """A forwarding proxy: it answers plain requests itself, and CONNECT with a tunnel to a port of this machine."""

    def handler(request):
        if request.method != "CONNECT":
            return Answer(body=b"by proxy")
        port = int(request.path.rpartition(":")[2])

        def tunnel(used):
            used.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as far:
                ends = {used: far, far: used}
                while True:
                    for ready in select.select(list(ends), [], [], 5)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        ends[ready].sendall(data)

        return Answer(status=0, raw=tunnel)

    with Server(handler) as server:
        yield server


def test_proxies_of_the_environment_are_used_but_never_for_loopback(monkeypatch, certificates):
    key, certificate, ca = certificates
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with proxy() as server, Server(ImageServer(), tls=(key, certificate)) as secure, Server(ImageServer()) as plain:
        monkeypatch.setenv("HTTPS_PROXY", f"http://who:{SECRET}@{server.host}")
        monkeypatch.setenv("http_proxy", server.host)
        monkeypatch.setenv("NO_PROXY", "direct.example")
        far, bare = f"far.example:{secure.port}", f"plain.example:{plain.port}"
        settings = Registries(insecure=frozenset({far, bare}), ca={f"localhost:{secure.port}": ca})
        with transport(settings, resolver=lambda *_: ["127.0.0.1"]) as shared:
            assert get(shared, f"https://{far}/v2/", authorization=LOGIN.basic()) == (200, b"{}")
            assert get(shared, f"http://{bare}/v2/") == (200, b"by proxy")
            assert [request.method for request in server.requests] == ["CONNECT", "GET"]
            assert server.requests[0].path == far
            assert "authorization" not in server.requests[0].headers
            assert server.requests[0].headers["proxy-authorization"].startswith("Basic ")
            assert server.requests[1].path == f"http://{bare}/v2/"
            assert secure.requests[0].authorization == LOGIN.basic()
            assert "proxy-authorization" not in secure.requests[0].headers
            assert get(shared, f"https://localhost:{secure.port}/v2/")[0] == 200
            assert get(shared, f"http://127.0.0.1:{plain.port}/v2/")[0] == 200
            assert len(server.requests) == 2
        monkeypatch.setenv("HTTPS_PROXY", f"http://who:{SECRET}@127.0.0.1:{free_port()}")
        with transport(settings) as shared, pytest.raises(RegistryUnavailable) as caught:
            get(shared, f"https://{far}/v2/")
        assert SECRET not in str(caught.value)


# -- G2: redirects -----------------------------------------------------------------------------


def test_g2_credentials_stay_with_their_host_and_port():
    with Server(lambda request: Answer(body=b"blob")) as second:

        def first_handler(request):
            if request.path == "/away":
                return Answer(307, {"Location": f"http://127.0.0.1:{second.port}/there"})
            if request.path == "/home":
                return Answer(307, {"Location": "/here"})
            return Answer(body=b"home")

        with Server(first_handler) as first, transport() as shared:
            base = f"http://{first.host}"
            assert get(shared, f"{base}/away", authorization=LOGIN.basic()) == (200, b"blob")
            assert get(shared, f"{base}/home", authorization=LOGIN.basic()) == (200, b"home")
        assert [bool(request.authorization) for request in first.requests] == [True, True, True]
        assert [request.authorization for request in second.requests] == [""]
        assert SECRET not in repr(second.requests)


@pytest.mark.parametrize(
    "location",
    [
        "http://192.0.2.1/x",
        "http://registry.example/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "https://user:password@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://[::1/",
    ],
)
def test_g2_a_redirect_to_elsewhere_than_https_is_refused(location):
    with Server(lambda request: Answer(302, {"Location": location})) as server, transport() as shared:
        with pytest.raises(HutchError):
            get(shared, f"http://{server.host}/", authorization=LOGIN.basic())
        assert len(server.requests) == 1


def test_g2_https_is_not_left_for_http(certificates):
    key, certificate, ca = certificates
    with Server(ImageServer()) as plain:
        away = {"Location": f"http://{plain.host}/"}
        with (
            Server(lambda request: Answer(302, away), tls=(key, certificate)) as secure,
            transport(Registries(ca={secure.host: ca})) as shared,
            pytest.raises(Unavailable, match="from https to http"),
        ):
            get(shared, f"https://{secure.host}/")
        assert plain.connections == 0


def test_g8_redirects_end():
    with Server(lambda request: Answer(302, {"Location": "/again"})) as server, transport() as shared:
        with pytest.raises(Unavailable, match="more than 5 redirects"):
            get(shared, f"http://{server.host}/")
        assert len(server.requests) == 6


# -- G3: realms --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("realm", "addresses"),
    [
        ("http://auth.example/token", "203.0.113.5"),
        ("ftp://auth.example/token", "8.8.8.8"),
        ("https://169.254.169.254/latest", "8.8.8.8"),
        ("https://10.0.0.1/token", "8.8.8.8"),
        ("https://127.0.0.1/token", "8.8.8.8"),
        ("http://127.0.0.1/token", "8.8.8.8"),
        ("http://localhost:8080/token", "8.8.8.8"),
        ("https://localhost/token", "8.8.8.8"),
        ("https://[::1]/token", "8.8.8.8"),
        ("https://[::ffff:127.0.0.1]/token", "8.8.8.8"),
        ("https://[fe80::1]/token", "8.8.8.8"),
        ("https://inside.example/token", "192.168.1.1"),
        ("https://user:pw@auth.example/token", "8.8.8.8"),
        ("https:///token", "8.8.8.8"),
        ("https://auth.example/\r\nX: y", "8.8.8.8"),
        ("/token", "8.8.8.8"),
        ("", "8.8.8.8"),
    ],
)
def test_g3_a_realm_that_is_not_ours_to_visit_gets_nothing(realm, addresses, monkeypatch):
    monkeypatch.setattr(hosts, "dial", lambda *_: pytest.fail("dialled"))

    def resolver(name, port):
        if hosts.literal(name):
            return [name]
        return ["127.0.0.1"] if name == "localhost" else ["8.8.4.4"] if name == "registry.example" else [addresses]

    with transport(resolver=resolver) as shared:
        authorizer = Authorizer(Origin("https", "registry.example", 443), LOGIN, shared)
        with pytest.raises(Unauthorized) as caught:
            authorizer.answer(f'Bearer realm="{realm}",service="s"', "repository:a:pull", rejected=None)
    assert "refused" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_g3_a_registry_inside_may_have_its_token_server_inside():
    with transport(resolver=lambda name, port: ["10.1.2.3"]) as shared:
        authorizer = Authorizer(Origin("https", "registry.lan", 443), LOGIN, shared)
        assert authorizer._check_realm("https://auth.lan/token") == "https://auth.lan/token"


def test_g3_scopes_are_ours_and_tokens_are_kept_by_scope():
    asked = []

    def tokens(request):
        asked.append(request)
        return Answer(body=b'{"token":"t%d","expires_in":300}' % len(asked))

    with Server(tokens) as server, transport() as shared:
        authorizer = Authorizer(Origin("http", "127.0.0.1", 1), LOGIN, shared)
        challenge = f'Bearer realm="http://{server.host}/t",service="s",scope="repository:somebody/else:pull,push"'
        assert authorizer.answer(challenge, "repository:a:pull", rejected=None) == "Bearer t1"
        assert authorizer.header("repository:a:pull") == "Bearer t1"
        assert authorizer.header("repository:b:pull") is None
        assert authorizer.answer(challenge, "repository:a:pull", rejected="Bearer old") == "Bearer t1"
        assert authorizer.answer(challenge, "repository:a:pull", rejected="Bearer t1") == "Bearer t2"
    assert all("scope=repository%3Aa%3Apull" in request.path for request in asked)
    assert all("somebody" not in request.path for request in asked)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token":1}', b'{"token":"a b"}', b'{"token":"a\\r\\nX: y"}', b'{"token":"a","token":"b"}'],
)
def test_g3_an_answer_without_a_token_is_refused(body):
    with Server(lambda request: Answer(body=body)) as server, transport() as shared:
        authorizer = Authorizer(Origin("http", "127.0.0.1", 1), LOGIN, shared)
        with pytest.raises(HutchError):
            authorizer.answer(f'Bearer realm="http://{server.host}/t"', "x", rejected=None)


# -- G5, X26: blobs ----------------------------------------------------------------------------


def fetch(shared, server, store, blob=BLOB):
    repository = Repository(server.host, "library/app", shared, None)
    seen = []
    with store.ingest(blob.digest, blob.size) as ingest:
        repository.blob(blob, ingest, seen.append)
    return seen


def blob_server(answer):
    """Serves DATA by `answer(request, number of requests so far)`."""
    count = []

    def handler(request):
        count.append(1)
        return answer(request, len(count))

    return Server(handler)


def part(start, **options):
    headers = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
    return Answer(206 if start else 200, headers, DATA[start:], **options)


def test_a_blob_arrives(store):
    with blob_server(lambda request, _: part(request.range_from)) as server, transport() as shared:
        assert fetch(shared, server, store)[-1] == len(DATA)
    assert store.has(BLOB.digest)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("at", [1, 4096, 700_001, len(DATA) - 1])
def test_x26_a_connection_lost_at_byte_n_is_taken_up_there(store, at, reset):
    def answer(request, number):
        if number == 1:
            return Answer(body=DATA[:at], length=len(DATA), reset=reset)
        return part(request.range_from)

    with blob_server(answer) as server, transport() as shared:
        fetch(shared, server, store)
        # After a reset the kernel may have thrown away what was not read yet; it is asked for again.
        resumed = server.requests[1].range_from
        assert resumed == at if not reset else 0 <= resumed <= at
        assert len(server.requests) == 2
    assert store.has(BLOB.digest)


def test_x26_a_registry_without_ranges_starts_again(store):
    def answer(request, number):
        return Answer(body=DATA[:1000], length=len(DATA)) if number == 1 else Answer(body=DATA)

    with blob_server(answer) as server, transport() as shared:
        fetch(shared, server, store)
    assert store.has(BLOB.digest)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_x26_a_busy_registry_is_asked_again_a_few_times(store, status):
    def answer(request, number):
        return Answer(status, {"Retry-After": "0"}) if number < 3 else Answer(body=DATA)

    with blob_server(answer) as server, transport() as shared:
        fetch(shared, server, store)
        assert len(server.requests) == 3
    said = b'{"errors":[{"code":"X","message":"come back\\u0007 later"}]}'
    with blob_server(lambda *_: Answer(status, body=said)) as server, transport() as shared:
        match = rf"{'too many requests' if status == 429 else status}, 3 times \(come back  ?later\)"
        with pytest.raises(RegistryUnavailable, match=match):
            fetch(shared, server, ContentStore(store.root + "2"))
        assert len(server.requests) == QUICK.attempts


@pytest.mark.parametrize("told", ["99999", "9" * 400, "Fri, 31 Dec 2100 23:59:59 GMT", "soon", "-5", ""])
def test_x26_a_registry_cannot_make_us_wait_for_ever(store, told):
    def answer(request, number):
        return Answer(429, {"Retry-After": told}) if number == 1 else Answer(body=DATA)

    begin = time.monotonic()
    with blob_server(answer) as server, transport() as shared:
        fetch(shared, server, store)
    assert time.monotonic() - begin < 2


def test_x26_no_progress_ends_and_what_arrived_stays(store):
    def answer(request, number):
        return Answer(body=DATA[:5000], length=len(DATA)) if number == 1 else Answer(body=b"", length=len(DATA))

    with blob_server(answer) as server, transport() as shared, pytest.raises(RegistryUnavailable):
        fetch(shared, server, store)
    with blob_server(lambda request, _: part(request.range_from)) as server, transport() as shared:
        fetch(shared, server, store)
    assert store.has(BLOB.digest)


@pytest.mark.parametrize(
    "body",
    [DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA + b"trailing", DATA[:-1], b"", b"x" * len(DATA)],
    ids=["flip", "trailing", "short", "empty", "other"],
)
@pytest.mark.parametrize("counted", [True, False])
def test_g5_what_is_not_the_blob_leaves_nothing(store, body, counted):
    def chunked(used):
        with contextlib.suppress(OSError):
            used.sendall(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n" if body else b"0\r\n\r\n")

    def answer(request, number):
        return Answer(body=body) if counted else Answer(headers={"Transfer-Encoding": "chunked"}, raw=chunked)

    with blob_server(answer) as server, transport() as shared:
        with pytest.raises(DigestMismatch):
            fetch(shared, server, store)
        assert len(server.requests) == 1
    assert list(store.digests()) == []
    assert os.listdir(f"{store.root}/ingest") == []


def test_g5_a_part_that_was_not_asked_for_is_not_put_in_its_place(store):
    def answer(request, number):
        if number == 1:
            return Answer(body=DATA[:1000], length=len(DATA))
        if number == 2:
            return Answer(206, {"Content-Range": f"bytes 0-999/{len(DATA)}"}, DATA[:1000])
        return Answer(body=DATA)

    with blob_server(answer) as server, transport() as shared:
        fetch(shared, server, store)
    assert store.has(BLOB.digest)


def test_x26_a_damaged_rest_of_an_earlier_download_is_told_apart(store):
    with store.ingest(BLOB.digest, BLOB.size) as ingest:
        ingest.write(b"\0" * 5000)
    from hutch.image.registry import DamagedPartial

    with blob_server(lambda request, _: part(request.range_from)) as server, transport() as shared:
        with pytest.raises(DamagedPartial):
            fetch(shared, server, store)
        fetch(shared, server, store)
    assert store.has(BLOB.digest)


def test_a_blob_that_is_not_there(store):
    with Server(ImageServer()) as server, transport() as shared, pytest.raises(BlobNotFound):
        fetch(shared, server, store)


# -- G8: bounds --------------------------------------------------------------------------------


def endless(used):
    with contextlib.suppress(OSError):
        while True:
            used.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


@pytest.mark.parametrize("path", ["manifests/latest", "tags/list"])
def test_g8_endless_documents_end(path):
    def handler(request):
        return Answer(headers={"Transfer-Encoding": "chunked"}, raw=endless)

    with Server(handler) as server, transport() as shared:
        repository = Repository(server.host, "app", shared, None)
        with pytest.raises(InvalidArgument, match="larger than"):
            list(repository.tags()) if path.startswith("tags") else repository.manifest("latest")


def test_g8_an_endless_error_and_an_endless_token_end():
    def handler(request):
        return Answer(404 if "token" not in request.path else 200, {"Transfer-Encoding": "chunked"}, raw=endless)

    with Server(handler) as server, transport() as shared:
        with pytest.raises(HutchError):
            Repository(server.host, "app", shared, None).document(BLOB, BLOB.size)
        authorizer = Authorizer(Origin("http", "127.0.0.1", 1), None, shared)
        with pytest.raises(InvalidArgument, match="larger than"):
            authorizer.answer(f'Bearer realm="http://{server.host}/token"', "x", rejected=None)


def slowly(head, piece, pause):
    def write(used):
        with contextlib.suppress(OSError):
            used.sendall(head)
            while True:
                used.sendall(piece)
                time.sleep(pause)

    return write


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"HT"],
    ids=["headers", "body", "status"],
)
def test_g8_a_slow_registry_is_given_up(store, head):
    piece = b"X" if not head.endswith(b"\r\n\r\n") else b"x"

    def handler(request):
        return Answer(status=0, raw=slowly(head, piece, 0.1))

    with Server(handler) as server, transport() as shared:
        begin = time.monotonic()
        with pytest.raises(RegistryUnavailable):
            Repository(server.host, "app", shared, None).manifest("latest")
        assert time.monotonic() - begin < 12


def test_g8_a_silent_registry_is_given_up():
    silent = Answer(status=0, raw=lambda used: used.recv(1))
    with Server(lambda request: silent) as server, transport() as shared:
        repository = Repository(server.host, "app", shared, None)
        with pytest.raises(RegistryUnavailable):
            repository.manifest("latest")


def test_g8_many_headers_end():
    def write(used):
        with contextlib.suppress(OSError):
            used.sendall(b"HTTP/1.1 200 OK\r\n")
            for number in range(10_000):
                used.sendall(b"X-%d: y\r\n" % number)

    with Server(lambda request: Answer(status=0, raw=write)) as server, transport() as shared:
        repository = Repository(server.host, "app", shared, None)
        with pytest.raises(HutchError):
            repository.manifest("latest")


def test_g8_lists_of_tags_end_and_do_not_lead_away():
    def away(request):
        link = {"Link": '<https://other.example/v2/app/tags/list?last=a>; rel="next"'}
        return Answer(headers=link, body=b'{"tags":["a"]}')

    with Server(away) as server, transport() as shared:
        tags = Repository(server.host, "app", shared, None).tags()
        assert next(tags) == "a"
        with pytest.raises(Unavailable, match="elsewhere"):
            next(tags)

    def same(request):
        return Answer(headers={"Link": '</v2/app/tags/list?last=a>; rel="next"'}, body=b'{"tags":[]}')

    with Server(same) as server, transport() as shared, pytest.raises(Unavailable, match="does not end"):
        list(Repository(server.host, "app", shared, None).tags())


# -- cancelling --------------------------------------------------------------------------------


def test_cancel_ends_a_read_that_waits(store):
    def one_byte(used):
        used.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nx")
        used.recv(1)

    with Server(lambda request: Answer(status=0, raw=one_byte)) as server:
        patience = Patience(read_s=60, headers_s=60)
        with transport(patience=patience) as shared:
            timer = threading.Timer(0.3, shared.cancel)
            timer.start()
            begin = time.monotonic()
            with pytest.raises(Cancelled):
                get(shared, f"http://{server.host}/")
            assert time.monotonic() - begin < 2
            with pytest.raises(Cancelled):
                get(shared, f"http://{server.host}/")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
