"""Manifests, indexes and configurations: what is read, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutch.errors import HutchError, InvalidConfig, NotSupported
from hutch.image import digest as digests
from hutch.image import manifest as m
from hutch.image import strictjson

SHA = "sha256:" + "0123456789abcdef" * 4


def descriptor(media_type=m.OCI_CONFIG, **fields):
    return {"mediaType": media_type, "digest": SHA, "size": 7, **fields}


def image(**fields):
    layers = [descriptor(f"{m.OCI_LAYER}+gzip")]
    return {"schemaVersion": 2, "mediaType": m.OCI_MANIFEST, "config": descriptor(), "layers": layers, **fields}


def index(**fields):
    return {"schemaVersion": 2, "mediaType": m.OCI_INDEX, "manifests": [descriptor(m.OCI_MANIFEST)], **fields}


def parse(document, media_type=None):
    return m.parse_manifest(json.dumps(document).encode(), media_type)


def test_both_families_are_read():
    assert isinstance(parse(image(), m.OCI_MANIFEST), m.Manifest)
    assert isinstance(parse(index(), m.OCI_INDEX), m.Index)
    docker = image(
        mediaType=m.DOCKER_MANIFEST,
        config=descriptor(m.DOCKER_CONFIG),
        layers=[descriptor(f"{m.DOCKER_LAYER}.gzip")],
    )
    assert isinstance(parse(docker, m.DOCKER_MANIFEST), m.Manifest)
    assert isinstance(parse(index(mediaType=m.DOCKER_LIST)), m.Index)
    without = image()
    del without["mediaType"]
    assert parse(without).media_type == m.OCI_MANIFEST


@pytest.mark.parametrize(
    ("document", "promised"),
    [
        (image(manifests=[]), None),
        (index(layers=[]), None),
        (index(config=descriptor()), None),
        (image(mediaType=m.OCI_INDEX), None),
        (index(mediaType=m.OCI_MANIFEST), None),
        (image(), m.DOCKER_MANIFEST),
        (image(), m.OCI_INDEX),
        (index(), m.OCI_MANIFEST),
        (image(schemaVersion=3), None),
        (image(schemaVersion="2"), None),
        (image(mediaType="text/plain"), None),
        (image(layers={}), None),
        ({"schemaVersion": 2}, None),
        ([], None),
    ],
)
def test_g6_a_document_that_can_be_read_in_two_ways_is_refused(document, promised):
    with pytest.raises(InvalidConfig):
        parse(document, promised)


@pytest.mark.parametrize(
    "text",
    [
        '{"schemaVersion":2,"layers":[],"layers":[]}',
        '{"schemaVersion":2,"config":{"digest":"a","digest":"b"}}',
        '{"a":NaN}',
        '{"a":1e999}',
        '{"a":-Infinity}',
        '{"a":' + "9" * 5000 + "}",
        "[" * 100_000,
        "[" * 70 + "]" * 70,
        '{"a":"\\ud800"}',
        '{"a":1} {"b":2}',
        "\ufeff{}",
        "",
        "{",
    ],
)
def test_g6_json_is_read_strictly(text):
    with pytest.raises(InvalidConfig):
        m.parse_manifest(text.encode("utf-8", "surrogatepass"))


def test_g8_oversize_documents_are_refused_unparsed():
    with pytest.raises(InvalidConfig, match="larger than"):
        m.parse_manifest(b" " * (m.MAX_MANIFEST_BYTES + 1))
    with pytest.raises(InvalidConfig, match="larger than"):
        m.parse_config(b" " * (m.MAX_CONFIG_BYTES + 1))
    with pytest.raises(InvalidConfig, match="129 layers"):
        parse(image(layers=[descriptor(m.OCI_LAYER)] * 129))
    with pytest.raises(InvalidConfig, match="config of"):
        parse(image(config=descriptor(size=m.MAX_CONFIG_BYTES + 1)))


def test_g7_an_index_has_at_most_a_thousand_children():
    assert len(parse(index(manifests=[descriptor(m.OCI_MANIFEST)] * 1000)).manifests) == 1000
    with pytest.raises(InvalidConfig, match="1001 manifests"):
        parse(index(manifests=[descriptor(m.OCI_MANIFEST)] * 1001))


@pytest.mark.parametrize(
    "bad",
    [
        {"digest": "sha256:../../../etc/passwd"},
        {"digest": "sha256:" + "0" * 63},
        {"digest": "sha256:" + "F" * 64},
        {"digest": SHA + "\n"},
        {"digest": "sha512:" + "0" * 64},
        {"digest": "md5:" + "0" * 32},
        {"digest": ""},
        {"digest": None},
        {"size": -1},
        {"size": 1 << 62},
        {"size": 1.5},
        {"size": "7"},
        {"size": True},
    ],
)
def test_g4_digests_and_sizes_are_checked_before_use(bad):
    for document in (
        image(config=descriptor(**bad)),
        image(layers=[descriptor(m.OCI_LAYER, **bad)]),
        index(manifests=[descriptor(m.OCI_MANIFEST, **bad)]),
    ):
        with pytest.raises(InvalidConfig):
            parse(document)


def test_old_foreign_and_strange_images_are_refused_clearly():
    with pytest.raises(NotSupported, match="schema 1"):
        parse({"schemaVersion": 1, "fsLayers": []})
    with pytest.raises(NotSupported, match="schema 1"):
        parse({}, "application/vnd.docker.distribution.manifest.v1+prettyjws")
    for kind in (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        m.OCI_LAYER.replace(".v1", ".nondistributable.v1"),
    ):
        with pytest.raises(NotSupported, match="foreign"):
            parse(image(layers=[descriptor(kind)]))
    with pytest.raises(NotSupported, match="not the configuration of an image"):
        parse(image(config=descriptor("application/vnd.cncf.helm.config.v1+json")))


CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [SHA]}}


def config(**fields):
    return m.parse_config(json.dumps({**CONFIG, **fields}).encode())


def test_c13_only_allowed_fields_of_a_configuration_are_read():
    run = config(
        config={
            "User": "1000:50",
            "Env": ["A=1"],
            "Cmd": ["sh", "-c", "x"],
            "Entrypoint": "/init",
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Labels": None,
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Retries": 3},
            "HostConfig": {"Privileged": True},
            "SecurityOpt": ["seccomp=unconfined"],
            "Privileged": True,
        },
        Privileged=True,
    ).config
    assert run.user == "1000:50"
    assert run.entrypoint == ("/init",)
    assert list(run.volumes) == ["/data"]
    assert run.labels == {}
    assert run.healthcheck is not None
    assert run.healthcheck.test == ("CMD", "true")
    assert "rivileged" not in repr(run)
    assert "SecurityOpt" not in repr(run)


@pytest.mark.parametrize(
    "bad",
    [
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:../x"]}},
        {"rootfs": {"type": "snapshot", "diff_ids": []}},
        {"rootfs": []},
        {"architecture": 1},
        {"config": {"Env": "A=1"}},
        {"config": {"Labels": {"a": 1}}},
        {"config": []},
    ],
)
def test_configurations_of_the_wrong_shape_are_refused(bad):
    with pytest.raises(InvalidConfig):
        config(**bad)


def test_g5_the_configuration_counts_layers_as_the_manifest_does():
    parsed = parse(image())
    m.check_layers(parsed, config())
    with pytest.raises(InvalidConfig, match="2 diff ids for 1 layers"):
        m.check_layers(parsed, config(rootfs={"type": "layers", "diff_ids": [SHA, SHA]}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused(value):
    for section in ({**image(), "layers": value}, {**index(), "manifests": value}, {**CONFIG, "config": value}, value):
        data = json.dumps(section).encode()
        for read in (m.parse_manifest, m.parse_config):
            try:
                read(data)
            except HutchError:
                pass


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    try:
        strictjson.loads(data, "document", limit=100)
    except InvalidConfig:
        pass


def test_chain_ids_name_a_layer_and_all_below_it():
    first, second = digests.of(b"1"), digests.of(b"2")
    chain = digests.chain_ids([first, second])
    assert chain == (first, digests.of(f"{first} {second}".encode()))
    assert digests.chain_ids([]) == ()
