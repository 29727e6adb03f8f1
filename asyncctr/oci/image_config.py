"""An image's configuration: what its containers run by default, and the chain ids of its layers (OCI image specification 1.1, config.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

from asyncctr.core.errors import InvalidConfigError
from asyncctr.core.validation import FrozenMap, check_text, fail, redacted
from asyncctr.oci.layout import MAX_JSON, Platform
from asyncctr.oci.reference import parse_digest

__all__ = ["ImageConfig"]

FIELD = "image"


@attrs.frozen(kw_only=True)
class ImageConfig:
    """What an image says about itself.

    Attributes:
        platform: what it runs on; ``None`` where it does not tell.
        env: variables. Not in the repr.
        entrypoint: the program.
        cmd: its arguments, or the whole command line where there is no entrypoint.
        workdir: an absolute path; ``"/"`` where none is given.
        user: as in ``ContainerConfig.user``; empty for root.
        stop_signal: a signal's name or number as given; empty for the default, SIGTERM.
        volumes: absolute paths that want a volume.
        exposed_ports: ports such as ``"80/tcp"``.
        labels: as given.
        diff_ids: the digests of the uncompressed layers, the lowest first.
    """

    platform: Platform | None = None
    env: Mapping[str, str] = attrs.field(factory=FrozenMap, repr=redacted)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = "/"
    user: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=FrozenMap)
    diff_ids: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """The configuration from its blob.

        Raises:
            InvalidConfigError: it is none; the field is ``"image"``.
        """
        if len(data) > MAX_JSON:
            raise fail(FIELD, f"its configuration has {len(data)} bytes; at most {MAX_JSON} are read")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise fail(FIELD, "its configuration is no JSON") from None
        if not isinstance(document, dict):
            raise fail(FIELD, "its configuration is no JSON object")
        config = _mapping(document, "config")
        workdir = _text(config, "WorkingDir")
        return cls(
            platform=_platform(document),
            env=_environment(config),
            entrypoint=_words(config, "Entrypoint"),
            cmd=_words(config, "Cmd"),
            # Builders other than Docker's store relative ones; the runtime takes absolute ones alone.
            workdir=workdir if workdir.startswith("/") else f"/{workdir}",
            user=_text(config, "User"),
            stop_signal=_text(config, "StopSignal"),
            volumes=tuple(_mapping(config, "Volumes")),
            exposed_ports=tuple(_mapping(config, "ExposedPorts")),
            labels=FrozenMap({key: _checked("Labels", value) for key, value in _mapping(config, "Labels").items()}),
            diff_ids=tuple(_digest(value) for value in _words(_mapping(document, "rootfs"), "diff_ids")),
        )

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """The id of each layer together with those below it, the lowest first: what snapshotters call them."""
        chain: list[str] = []
        for diff_id in self.diff_ids:
            text = f"{chain[-1]} {diff_id}" if chain else ""
            chain.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else diff_id)
        return tuple(chain)


def _platform(document: Mapping[str, Any]) -> Platform | None:
    system, architecture = _text(document, "os"), _text(document, "architecture")
    return Platform(system, architecture, _text(document, "variant")) if system and architecture else None


def _environment(config: Mapping[str, Any]) -> FrozenMap[str, str]:
    pairs = {}
    for entry in _words(config, "Env"):
        name, separator, value = entry.partition("=")
        # Engines leave out what names no variable or gives it no value.
        if name and separator:
            pairs[name] = value
    return FrozenMap(pairs)


def _digest(value: str) -> str:
    try:
        return str(parse_digest(value, field=FIELD))
    except InvalidConfigError as error:
        raise fail(FIELD, f"its configuration has a broken diff_id: {error}") from error


def _checked(key: str, value: object) -> str:
    try:
        return check_text(FIELD, value, limit=MAX_JSON)
    except InvalidConfigError as error:
        raise fail(FIELD, f"its configuration has a broken {key}: {error}") from error


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return "" if value is None else _checked(key, value)


def _words(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        # The first Docker versions stored a command line of one word so.
        value = [value]
    if not isinstance(value, list):
        raise fail(FIELD, f"its configuration has a broken {key}: it must be a list")
    return tuple(_checked(key, entry) for entry in value)


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fail(FIELD, f"its configuration has a broken {key}: it must be an object")
    for name in value:
        _checked(key, name)
    return value
