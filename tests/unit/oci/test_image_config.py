from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.core.errors import InvalidConfigError
from asyncctr.oci.image_config import ImageConfig
from asyncctr.oci.layout import MAX_JSON, Platform
from asyncctr.testing.images import ImageSpec, build_image

DIGESTS = [f"sha256:{digit * 64}" for digit in "abc"]


def parse(config: object = None, **more: object) -> ImageConfig:
    return ImageConfig.parse(json.dumps({"config": config, **more}).encode())


def test_a_whole_configuration() -> None:
    image = parse(
        {
            "Env": ["PATH=/bin", "A=1=2", "EMPTY=", "NAME", "=x"],
            "Entrypoint": ["e"],
            "Cmd": ["c", ""],
            "WorkingDir": "/w",
            "User": "app:extra",
            "StopSignal": "SIGQUIT",
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {"k": "v"},
            "Healthcheck": {"Test": ["NONE"]},
        },
        os="linux",
        architecture="arm64",
        variant="v8",
        rootfs={"type": "layers", "diff_ids": DIGESTS},
    )
    assert image == ImageConfig(
        platform=Platform("linux", "arm64", "v8"),
        env={"PATH": "/bin", "A": "1=2", "EMPTY": ""},
        entrypoint=("e",),
        cmd=("c", ""),
        workdir="/w",
        user="app:extra",
        stop_signal="SIGQUIT",
        volumes=("/data",),
        exposed_ports=("80/tcp",),
        labels={"k": "v"},
        diff_ids=tuple(DIGESTS),
    )
    assert "1=2" not in repr(image)


def test_what_is_left_out_has_a_default() -> None:
    assert parse() == parse({}) == ImageConfig.parse(b"{}") == ImageConfig()
    assert parse({"Env": None, "Cmd": None, "Entrypoint": None, "Volumes": None, "WorkingDir": ""}) == ImageConfig()
    assert parse({"Cmd": "sh"}).cmd == ("sh",)
    assert parse({"WorkingDir": "app"}).workdir == "/app"


def test_chain_ids() -> None:
    def chained(*texts: str) -> str:
        return "sha256:" + hashlib.sha256(" ".join(texts).encode()).hexdigest()

    image = parse(rootfs={"diff_ids": DIGESTS})
    second = chained(DIGESTS[0], DIGESTS[1])
    assert image.chain_ids == (DIGESTS[0], second, chained(second, DIGESTS[2]))
    assert ImageConfig().chain_ids == ()


def test_a_built_image() -> None:
    built = build_image(ImageSpec(env={"A": "b"}, cmd=("x",), user="app", volumes=("/v",), exposed_ports=("80/tcp",)))
    image = ImageConfig.parse(built.blobs[built.image_id])
    assert (dict(image.env), image.cmd, image.user, image.volumes) == ({"A": "b"}, ("x",), "app", ("/v",))
    assert len(image.chain_ids) == len(built.layers)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b" " * (MAX_JSON + 1),
        b'{"config": []}',
        b'{"config": {"Env": {}}}',
        b'{"config": {"Env": [1]}}',
        b'{"config": {"Cmd": ["a\\u0000"]}}',
        b'{"config": {"Cmd": ["\\ud800"]}}',
        b'{"config": {"User": 0}}',
        b'{"config": {"Labels": {"a": 1}}}',
        b'{"config": {"Volumes": ["/a"]}}',
        b'{"rootfs": {"diff_ids": ["../x"]}}',
        b'{"os": 1}',
    ],
)
def test_broken_configurations(data: bytes) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        ImageConfig.parse(data)
    assert caught.value.field == "image"


KEYS = ["Env", "Cmd", "Entrypoint", "Labels", "Volumes", "WorkingDir", "User", "diff_ids", "config", "rootfs", "os"]
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(["", "x", "A=b", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_json_is_parsed_or_refused(document: dict[str, Any]) -> None:
    try:
        image = ImageConfig.parse(json.dumps(document).encode())
    except InvalidConfigError as error:
        assert error.field == "image"
    else:
        assert image.workdir.startswith("/")
