"""What is asked of a daemon for a :class:`asyncctr.DockerfileBuildInput`: each field in the frontend's own words, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from asyncctr.buildkit.proto.control_pb2 import CacheOptions, CacheOptionsEntry, Exporter, SolveRequest
from asyncctr.core.errors import UnsupportedError
from asyncctr.core.validation import FrozenMap, fail
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncctr.core.build import DockerfileBuildInput

__all__ = ["Daemon", "Result", "caches_to_write", "frontend", "request"]

_FRONTEND = "dockerfile.v0"
_HOST_NETWORK = "network.host"


@attrs.frozen(kw_only=True)
class Daemon:
    """What a BuildKit can do, as far as BuildKits differ.

    Attributes:
        backend: the type of the backend, for errors.
        outputs: the kinds of ``outputs`` that it knows.
        caches: the types of ``cache_to`` that it knows; ``None`` where that is its own to say.
        without_outputs: why it does not know others, for errors.
    """

    backend: str
    outputs: frozenset[str]
    caches: frozenset[str] | None = None
    without_outputs: str = ""

    def check(self, build_input: DockerfileBuildInput) -> None:
        """Refuse what it would not honour.

        Raises:
            UnsupportedError: there is such a field.
        """
        for kind in build_input.outputs:
            if kind not in self.outputs:
                raise self.unsupported(f"outputs.{kind}", self.without_outputs)
        if build_input.network_mode not in ("", "default", "none", "host"):
            raise self.unsupported(
                "network_mode", f"BuildKit knows 'none' and 'host', and not {build_input.network_mode!r}"
            )
        if "host-gateway" in build_input.extra_hosts.values():
            raise self.unsupported("extra_hosts.host-gateway", "BuildKit does not know the gateway; name its address")
        for field in ("cache_from", "cache_to"):
            for text in getattr(build_input, field):
                kind = _cache(field, text).type
                if kind == "local":
                    raise self.unsupported(f"{field}.local", "take 'type=registry' or 'type=inline'")
                if field == "cache_to" and self.caches is not None and kind not in self.caches:
                    raise self.unsupported(f"cache_to.{kind}", f"this BuildKit writes {', '.join(self.caches)} alone")

    def unsupported(self, field: str, why: str) -> UnsupportedError:
        """The error for a field of a build that it does not honour."""
        return UnsupportedError(f"build.{field}: {why}", field=f"build.{field}", backend=self.backend)


@attrs.frozen
class Result:
    """What is to become of what was built: an exporter and its attributes."""

    kind: str
    attributes: Mapping[str, str] = attrs.field(factory=FrozenMap)


def frontend(build_input: DockerfileBuildInput) -> dict[str, str]:
    """The attributes of the Dockerfile's frontend, without those of the context (BuildKit, frontend/dockerfile/builder)."""
    attributes = {
        # What is here already is taken without asking a registry.
        "image-resolve-mode": "pull" if build_input.pull else "local",
    }
    plain = {
        "target": build_input.target,
        "platform": build_input.platform,
        "force-network-mode": "" if build_input.network_mode == "default" else build_input.network_mode,
        "add-hosts": ",".join(f"{host}={address}" for host, address in build_input.extra_hosts.items()),
    }
    attributes |= {key: value for key, value in plain.items() if value}
    attributes |= {f"build-arg:{key}": value for key, value in build_input.build_args.items()}
    attributes |= {f"label:{key}": value for key, value in build_input.labels.items()}
    if build_input.no_cache:
        # Empty for every stage.
        attributes["no-cache"] = ""
    return attributes


def request(
    ref: str, session: str, attributes: Mapping[str, str], build_input: DockerfileBuildInput, result: Result
) -> SolveRequest:
    """The request, without caches to write."""
    return SolveRequest(
        ref=ref,
        session=session,
        frontend=_FRONTEND,
        frontend_attrs=attributes,
        cache=CacheOptions(imports=[_cache("cache_from", text) for text in build_input.cache_from]),
        entitlements=[_HOST_NETWORK] if build_input.network_mode == "host" else [],
        # Both forms: the first is all that BuildKit knew before 0.13, which then took to a list.
        exporter_deprecated=result.kind,
        exporter_attrs_deprecated=result.attributes,
        exporters=[Exporter(type=result.kind, attrs=result.attributes)],
    )


def caches_to_write(build_input: DockerfileBuildInput) -> list[CacheOptionsEntry]:
    """``cache_to`` in the daemon's words."""
    return [_cache("cache_to", text) for text in build_input.cache_to]


def _cache(field: str, text: str) -> CacheOptionsEntry:
    """From ``"type=registry,ref=…"``, or the name of an image."""
    if "=" not in text:
        return CacheOptionsEntry(type="registry", attrs={"ref": str(Reference.parse(text).with_default_tag())})
    attributes: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise fail(field, f"{text!r} must be an image or 'type=…,key=value'")
        attributes[key.strip()] = value.strip()
    kind = attributes.pop("type", "registry")
    return CacheOptionsEntry(type=kind, attrs=attributes)
