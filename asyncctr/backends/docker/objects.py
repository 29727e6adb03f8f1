"""An engine's volumes, networks and image store, through aiodocker; its errors are translated here."""

from __future__ import annotations

import ipaddress
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import aiodocker
import aiohttp

from asyncctr.backends.docker.errors import BACKEND, raise_for_pull, translate
from asyncctr.backends.docker.jsonstream import ProgressMeter, documents, error_of
from asyncctr.backends.docker.naming import registry_headers, tag
from asyncctr.core.backend import ImageSummary, Network, Volume
from asyncctr.core.errors import (
    BackendUnavailableError,
    ConflictError,
    ConnectionLostError,
    InvalidConfigError,
    OperationTimeoutError,
)
from asyncctr.core.validation import (
    FrozenMap,
    check_object_name,
    check_text,
    check_token,
    fail,
    label_key,
    mapping,
    positive,
    sequence,
)
from asyncctr.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from asyncctr.backends.docker.api import DockerApi
    from asyncctr.core.images import ProgressCallback, RegistryAuth

__all__ = ["DockerObjects"]

# aiodocker's own status for an engine that it cannot connect to.
_CANNOT_CONNECT = 900


@contextmanager
def _translated(kind: str, resource: str) -> Iterator[None]:
    try:
        yield
    except aiodocker.DockerError as error:
        message = str(error.message)
        if error.status == _CANNOT_CONNECT:
            raise BackendUnavailableError(message, backend=BACKEND, resource=resource) from error
        raise translate(error.status, message, resource=resource, kind=kind) from error
    except TimeoutError as error:
        message = f"the engine did not answer about {kind} {resource!r} in time"
        raise OperationTimeoutError(message, backend=BACKEND, resource=resource) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        message = f"the engine went away while it was asked about {kind} {resource!r}: {error!r}"
        raise ConnectionLostError(message, backend=BACKEND, resource=resource) from error


def _labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    return dict(mapping("labels", labels, label_key, check_text))


def _label_filter(labels: Mapping[str, str] | None) -> dict[str, list[str]]:
    return {"label": [f"{key}={value}" for key, value in _labels(labels).items()]}


def _check_subnet(subnet: object) -> None:
    try:
        ipaddress.ip_network(check_token("subnet", subnet))
    except ValueError as error:
        if isinstance(error, InvalidConfigError):
            raise
        raise fail("subnet", f"must be a network such as '10.0.0.0/24': {error}") from None


def _network(document: dict[str, Any]) -> Network:
    configs = (document.get("IPAM") or {}).get("Config") or ()
    return Network(
        id=str(document.get("Id", "")),
        name=str(document["Name"]),
        labels=FrozenMap(document.get("Labels") or {}),
        subnets=tuple(str(config["Subnet"]) for config in configs if config.get("Subnet")),
    )


def _volume(document: dict[str, Any]) -> Volume:
    return Volume(name=str(document["Name"]), labels=FrozenMap(document.get("Labels") or {}))


class DockerObjects:
    """What an engine keeps beside containers."""

    def __init__(self, api: DockerApi) -> None:
        self._api = api

    @property
    def _docker(self) -> aiodocker.Docker:
        self._api.check_open()
        return self._opened

    @cached_property
    def _opened(self) -> aiodocker.Docker:
        # The session is ours: closed with the backend, unlimited connections, the same transport as everything else.
        return aiodocker.Docker(
            url="http://docker",
            connector=self._api.session.connector,
            session=self._api.session,
            timeout=aiohttp.ClientTimeout(total=self._api.op_timeout),
            api_version=f"v{self._api.version}",
        )

    # --- volumes ---

    async def create_volume(self, name: str, *, labels: Mapping[str, str] | None = None) -> Volume:
        """Make a volume; see :meth:`asyncctr.SupportsVolumes.create_volume`."""
        check_object_name("name", name)
        with _translated("volume", name):
            volumes: Any = self._docker.volumes
            volume = await volumes.create({"Name": name, "Labels": _labels(labels)})
            made = _volume(await volume.show())
        if labels is not None and made.labels != FrozenMap(labels):
            # Engines answer with the one that is there.
            message = f"volume {name} exists, with other labels"
            raise ConflictError(message, backend=BACKEND, resource=name)
        return made

    async def list_volumes(self, *, labels: Mapping[str, str] | None = None) -> Sequence[Volume]:
        """The volumes that have all the labels."""
        with _translated("volume", ""):
            volumes: Any = self._docker.volumes
            answer = await volumes.list(filters=_label_filter(labels))
        return tuple(_volume(document) for document in answer.get("Volumes") or ())

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data."""
        check_object_name("name", name)
        with _translated("volume", name):
            volumes: Any = self._docker.volumes
            await (await volumes.get(name)).delete(force=force)

    # --- networks ---

    async def create_network(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        subnet: str | None = None,
        internal: bool = False,
        mtu: int | None = None,
    ) -> Network:
        """Make a bridge network; see :meth:`asyncctr.SupportsNetworks.create_network`."""
        check_object_name("name", name)
        if subnet is not None:
            _check_subnet(subnet)
        checked_mtu = positive("mtu", mtu, minimum=68)
        config: dict[str, Any] = {
            "Name": name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Internal": internal,
            "Labels": _labels(labels),
        }
        if subnet is not None:
            config["IPAM"] = {"Config": [{"Subnet": subnet}]}
        if checked_mtu is not None:
            config["Options"] = {"com.docker.network.driver.mtu": str(checked_mtu)}
        with _translated("network", name):
            network = await self._docker.networks.create(config)
            return _network(await network.show())

    async def list_networks(self, *, labels: Mapping[str, str] | None = None) -> Sequence[Network]:
        """The networks that have all the labels."""
        with _translated("network", ""):
            answer = await self._docker.networks.list(filters=_label_filter(labels))
        return tuple(_network(document) for document in answer)

    async def remove_network(self, name: str) -> None:
        """Remove a network."""
        check_object_name("name", name)
        # Podman's default is to remove the containers on it as well; Docker knows no such thing.
        await self._api.call("DELETE", f"/networks/{name}", params={"force": False}, kind="network", resource=name)

    # --- images ---

    async def images(self) -> Sequence[ImageSummary]:
        """All images."""
        with _translated("image", ""):
            answer = await self._docker.images.list()
        return tuple(
            ImageSummary(
                id=str(document["Id"]),
                tags=tuple(sorted(str(name) for name in document.get("RepoTags") or () if name != "<none>:<none>")),
                digests=tuple(
                    sorted(str(name) for name in document.get("RepoDigests") or () if not name.startswith("<none>"))
                ),
                size=int(document.get("Size") or 0),
                labels=FrozenMap(document.get("Labels") or {}),
            )
            for document in answer
        )

    async def tag(self, source: str, target: str) -> None:
        """Give an image a further name."""
        await tag(self._api, source, Reference.parse(target).with_default_tag())

    async def push(
        self, name: str, *, auth: RegistryAuth | None = None, on_progress: ProgressCallback | None = None
    ) -> None:
        """Send an image to the registry in its name; see :meth:`asyncctr.SupportsImages.push`."""
        reference = Reference.parse(name).with_default_tag()
        meter = ProgressMeter(on_progress)
        # Engines insist on the header, even where there is nothing to say.
        headers = {"X-Registry-Auth": "e30=", **await registry_headers(reference, auth)}
        async with documents(
            self._api,
            "POST",
            f"/images/{reference.name}/push",
            params={"tag": reference.tag or "latest"},
            headers=headers,
            resource=name,
        ) as answer:
            async for document in answer:
                if message := error_of(document):
                    raise_for_pull(message, name=name)
                meter.feed(document)
        meter.finish()

    async def save(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        """The images as a tar that ``load`` takes; close the iterator to stop early."""
        wanted = sequence("names", names, check_token)
        if not wanted:
            raise fail("names", "must name an image")
        stream = await self._api.stream(
            "GET", "/images/get", params={"names": wanted}, kind="image", resource=", ".join(wanted)
        )
        try:
            while data := await stream.receive():
                yield data
        finally:
            stream.close()
