"""A test image made from busybox without any network, as an archive that every runtime loads, and its push to a registry.

The archive is an OCI image layout (image-spec 1.1) with a ``manifest.json`` as ``docker save`` writes it, pointing into
``blobs/sha256``: Docker, Podman, containerd and skopeo take it. The same specification gives the same bytes every time.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs

from asyncctr.testing.distribution import push_blobs
from asyncctr.testing.programs import RuntimeMissing, find

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from asyncctr.testing.distribution import Auth

__all__ = ["HOST_PLATFORM", "BuiltImage", "ImageSpec", "build_archive", "build_image", "push"]

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "AMD64": "amd64"}

HOST_PLATFORM = f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"
"""This machine's platform, as images name it."""

_CREATED = "2024-01-01T00:00:00Z"
_MTIME = 1_704_067_200  # the same moment

_PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
)
_GROUP = b"root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n"
_NSSWITCH = b"passwd: files\ngroup: files\nhosts: files dns\n"


def _pairs(value: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(dict(value).items())


def _file_pairs(value: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> tuple[tuple[str, bytes], ...]:
    return tuple(dict(value).items())


def _words(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class ImageSpec:
    """What the image is to be.

    The root file system has busybox with all its applets, the users ``root`` and ``app`` (1000:1000, and in the group
    ``extra``, 2000), ``/tmp`` with mode 1777, ``/home/app``, and ``/etc/image-platform`` with the platform's name. Debian's static ``wget`` crashes where there
    is no glibc; ``nc`` makes requests in its place, by name too.

    Attributes:
        reference: its name and tag in archives.
        env: ``Env``; a ``PATH`` by default.
        cmd: ``Cmd``.
        entrypoint: ``Entrypoint``; none by default.
        workdir: ``WorkingDir``; made in the image where it is not there.
        user: ``User``.
        labels: ``Labels``.
        stop_signal: ``StopSignal``; the runtime's default when empty.
        volumes: ``Volumes``: paths.
        exposed_ports: ``ExposedPorts``: such as ``"80/tcp"``.
        files: further files, by absolute path, in a layer of their own; with mode 0755 where they start with ``#!``.
        padding: bytes of an incompressible file ``/padding`` in a layer of its own, for tests of progress and cuts.
        platforms: more than one makes a multi-platform index; busybox is this machine's in all of them.
        compression: of the layers.
    """

    reference: str = "asyncctr.test/busybox:latest"
    env: tuple[tuple[str, str], ...] = attrs.field(
        default=(("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),),
        converter=_pairs,
    )
    cmd: tuple[str, ...] = attrs.field(default=("/bin/sh",), converter=_words)
    entrypoint: tuple[str, ...] = attrs.field(default=(), converter=_words)
    workdir: str = "/"
    user: str = ""
    labels: tuple[tuple[str, str], ...] = attrs.field(default=(), converter=_pairs)
    stop_signal: str = ""
    volumes: tuple[str, ...] = attrs.field(default=(), converter=_words)
    exposed_ports: tuple[str, ...] = attrs.field(default=(), converter=_words)
    files: tuple[tuple[str, bytes], ...] = attrs.field(default=(), converter=_file_pairs, repr=False)
    padding: int = 0
    platforms: tuple[str, ...] = attrs.field(default=(HOST_PLATFORM,), converter=_words)
    compression: Literal["gzip", "none"] = "gzip"


@attrs.frozen(kw_only=True)
class BuiltImage:
    """An image in memory.

    Attributes:
        reference: the name and tag it was built for.
        digest: of the manifest, or of the index when there are several platforms: what a registry gives for the tag.
        media_type: of what ``digest`` is of.
        image_id: the configuration's digest on this machine's platform (else the first): what Docker calls the image's id.
        manifests: each platform's manifest digest.
        layers: the layers' digests on that same platform, the lowest first.
        blobs: all content by digest: layers first, then configurations, manifests, the index.
        media_types: each blob's.
    """

    reference: str
    digest: str
    media_type: str
    image_id: str
    manifests: dict[str, str]
    layers: tuple[str, ...]
    blobs: dict[str, bytes] = attrs.field(repr=False)
    media_types: dict[str, str] = attrs.field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of all blobs together."""
        return sum(map(len, self.blobs.values()))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


class _Layer:
    """A tar with the same bytes for the same calls: fixed times, owners and order."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed in data
        self._seen: set[str] = set()

    def _add(self, path: str, kind: bytes, mode: int, *, data: bytes = b"", target: str = "", owner: int = 0) -> None:
        name = path.strip("/")
        if not name or name in self._seen:
            return
        self._seen.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, mode, _MTIME
        info.uid = info.gid = owner
        info.linkname, info.size = target, len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def directory(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        parent = path.rstrip("/").rpartition("/")[0]
        if parent:
            self.directory(parent)
        self._add(path, tarfile.DIRTYPE, mode, owner=owner)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self.directory(path.rpartition("/")[0])
        self._add(path, tarfile.REGTYPE, mode, data=data)

    def link(self, path: str, target: str) -> None:
        self.directory(path.rpartition("/")[0])
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def data(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def _busybox() -> tuple[bytes, list[str]]:
    """The static busybox and its applets' paths.

    Raises:
        RuntimeMissing: none is installed, or it is not a static one.
    """
    path = find("busybox")
    data = Path(path).read_bytes()
    # PT_INTERP's content; a program that has none was linked statically.
    if b"/ld-linux" in data[:4096] or b"/ld-musl" in data[:4096]:
        raise RuntimeMissing(
            "busybox", f"{path} is not static; on Debian: apt-get install busybox-static", package="busybox-static"
        )
    listed = subprocess.run([path, "--list-full"], capture_output=True, check=True, timeout=10)  # noqa: S603 - our own words
    return data, sorted(listed.stdout.decode().split())


def _base_layer(spec: ImageSpec) -> bytes:
    data, applets = _busybox()
    layer = _Layer()
    for path in ("bin", "dev", "etc", "home", "proc", "run", "sbin", "sys", "usr/bin", "usr/sbin", "var/log"):
        layer.directory(f"/{path}")
    layer.directory("/root", 0o700)
    layer.directory("/home/app", 0o755, owner=1000)
    layer.directory("/tmp", 0o1777)  # noqa: S108 - the image's
    layer.directory(spec.workdir)
    layer.file("/etc/passwd", _PASSWD)
    layer.file("/etc/group", _GROUP)
    layer.file("/etc/nsswitch.conf", _NSSWITCH)
    layer.file("/bin/busybox", data, 0o755)
    for applet in applets:
        layer.link(f"/{applet}", "/bin/busybox")
    return layer.data()


def _layers(spec: ImageSpec, target: str, base: bytes) -> list[bytes]:
    layers = [base]
    marker = _Layer()
    marker.file("/etc/image-platform", target.encode() + b"\n")
    layers.append(marker.data())
    if spec.files:
        extra = _Layer()
        for path, data in spec.files:
            extra.file(path, data, 0o755 if data.startswith(b"#!") else 0o644)
        layers.append(extra.data())
    if spec.padding:
        filler = _Layer()
        filler.file("/padding", hashlib.shake_128(b"asyncctr").digest(spec.padding))
        layers.append(filler.data())
    return layers


def _config(spec: ImageSpec, target: str, diff_ids: list[str]) -> bytes:
    system, _, rest = target.partition("/")
    architecture, _, variant = rest.partition("/")
    runtime: dict[str, object] = {
        "Env": [f"{name}={value}" for name, value in spec.env],
        "Cmd": list(spec.cmd),
        "Entrypoint": list(spec.entrypoint),
        "WorkingDir": spec.workdir,
        "User": spec.user,
        "Labels": dict(spec.labels),
        "StopSignal": spec.stop_signal,
        "Volumes": {path: {} for path in spec.volumes},
        "ExposedPorts": {port: {} for port in spec.exposed_ports},
    }
    config: dict[str, object] = {
        "created": _CREATED,
        "architecture": architecture,
        "os": system,
        "config": {name: value for name, value in runtime.items() if value},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": _CREATED, "created_by": "asyncctr.testing"} for _ in diff_ids],
    }
    if variant:
        config["variant"] = variant
    return _json(config)


def build_image(spec: ImageSpec) -> BuiltImage:
    """Build the image in memory. It blocks for some 0.2 s and more with padding: call it in a thread, or before the loop runs.

    Raises:
        RuntimeMissing: there is no static busybox.
    """
    base = _base_layer(spec)
    contents: dict[str, tuple[str, bytes]] = {}
    tops: dict[str, tuple[str, bytes]] = {}
    manifests: dict[str, str] = {}
    shown: dict[str, tuple[str, tuple[str, ...]]] = {}
    packed: dict[bytes, bytes] = {}

    def put(into: dict[str, tuple[str, bytes]], media_type: str, data: bytes) -> dict[str, object]:
        digest = _digest(data)
        into[digest] = (media_type, data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def pack(layer: bytes) -> bytes:
        if spec.compression == "none":
            return layer
        if layer not in packed:
            packed[layer] = gzip.compress(layer, compresslevel=6, mtime=0)
        return packed[layer]

    layer_type = LAYER_TYPE if spec.compression == "none" else f"{LAYER_TYPE}+gzip"
    descriptors: list[dict[str, object]] = []
    configs: dict[str, tuple[str, bytes]] = {}
    for target in spec.platforms:
        layers = _layers(spec, target, base)
        entries = [put(contents, layer_type, pack(layer)) for layer in layers]
        config = put(configs, CONFIG_TYPE, _config(spec, target, [_digest(layer) for layer in layers]))
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": entries}
        descriptor = put(tops, MANIFEST_TYPE, _json(manifest))
        names = dict(zip(("os", "architecture", "variant"), target.split("/"), strict=False))
        descriptors.append(descriptor | {"platform": names})
        manifests[target] = str(descriptor["digest"])
        shown[target] = (str(config["digest"]), tuple(str(entry["digest"]) for entry in entries))
    if len(descriptors) > 1:
        top = put(tops, INDEX_TYPE, _json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors}))
    else:
        top = descriptors[0]
    image_id, layer_digests = shown.get(HOST_PLATFORM, next(iter(shown.values())))
    everything = contents | configs | tops
    return BuiltImage(
        reference=spec.reference,
        digest=str(top["digest"]),
        media_type=str(top["mediaType"]),
        image_id=image_id,
        manifests=manifests,
        layers=layer_digests,
        blobs={digest: data for digest, (_, data) in everything.items()},
        media_types={digest: media_type for digest, (media_type, _) in everything.items()},
    )


def build_archive(spec: ImageSpec, path: str | os.PathLike[str]) -> BuiltImage:
    """Build the image and write it as an archive; the image. It blocks, as :func:`build_image` does.

    Raises:
        RuntimeMissing: there is no static busybox.
    """
    image = build_image(spec)
    tag = spec.reference.rpartition("/")[2].partition(":")[2] or "latest"
    full = spec.reference if ":" in spec.reference.rpartition("/")[2] else f"{spec.reference}:latest"
    top: dict[str, object] = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.blobs[image.digest]),
        # The first is the OCI layout's; the second is what containerd names the image by.
        "annotations": {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": full},
    }

    def name(digest: str) -> str:
        return f"blobs/{digest.replace(':', '/')}"

    save = [{"Config": name(image.image_id), "RepoTags": [full], "Layers": [name(digest) for digest in image.layers]}]
    archive = _Layer()
    archive.file("/oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    archive.file("/index.json", _json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [top]}))
    archive.file("/manifest.json", _json(save))
    for digest, data in image.blobs.items():
        archive.file(f"/{name(digest)}", data)
    Path(path).write_bytes(archive.data())
    return image


def read_archive(path: str | os.PathLike[str]) -> BuiltImage:
    """The image in an archive with an OCI layout and a ``manifest.json``.

    Raises:
        ValueError: it is no such archive, or has not exactly one image.
    """
    with tarfile.open(path) as archive:
        members = {member.name: archive.extractfile(member) for member in archive.getmembers() if member.isfile()}
        contents = {name: file.read() for name, file in members.items() if file is not None}
    try:
        (top,) = json.loads(contents["index.json"])["manifests"]
        (save,) = json.loads(contents["manifest.json"])
    except (KeyError, ValueError) as error:
        message = f"{path} is no archive of one image with an OCI layout and a manifest.json"
        raise ValueError(message) from error
    blobs = {
        name.removeprefix("blobs/").replace("/", ":"): data
        for name, data in contents.items()
        if name.startswith("blobs/")
    }
    media_types = dict.fromkeys(blobs, "application/octet-stream") | {top["digest"]: top["mediaType"]}
    manifests: dict[str, str] = {}
    if top["mediaType"] == INDEX_TYPE:
        for entry in json.loads(blobs[top["digest"]])["manifests"]:
            names = entry["platform"]
            manifests["/".join(names[key] for key in ("os", "architecture", "variant") if key in names)] = entry[
                "digest"
            ]
            media_types[entry["digest"]] = entry["mediaType"]
    else:
        config = json.loads(blobs[json.loads(blobs[top["digest"]])["config"]["digest"]])
        manifests[f"{config['os']}/{config['architecture']}"] = top["digest"]
    return BuiltImage(
        reference=save["RepoTags"][0],
        digest=top["digest"],
        media_type=top["mediaType"],
        image_id=save["Config"].removeprefix("blobs/").replace("/", ":"),
        manifests=manifests,
        layers=tuple(name.removeprefix("blobs/").replace("/", ":") for name in save["Layers"]),
        blobs=blobs,
        media_types=media_types,
    )


async def push(
    image: ImageSpec | BuiltImage | str | os.PathLike[str],
    registry: str,
    repository: str,
    tag: str,
    auth: Auth | None = None,
) -> BuiltImage:
    """Push an image to a registry by the distribution API, without any daemon; what was pushed.

    Args:
        image: a specification, a built image, or an archive's path.
        registry: ``host:port``, reached by plain HTTP; with ``https://`` or ``http://`` in front, by that.
        repository: such as ``"library/busybox"``.
        tag: such as ``"latest"``.
        auth: user and password, for Basic and token authentication alike.

    Raises:
        PushError: the registry refused something.
        aiohttp.ClientError: it cannot be reached.
    """
    if isinstance(image, ImageSpec):
        image = await asyncio.to_thread(build_image, image)
    elif not isinstance(image, BuiltImage):
        image = await asyncio.to_thread(read_archive, image)
    tops = {*image.manifests.values(), image.digest}
    blobs = {digest: data for digest, data in image.blobs.items() if digest not in tops}
    ordered = [*image.manifests.values(), *([] if image.digest in image.manifests.values() else [image.digest])]
    manifests = [(digest, image.media_types[digest], image.blobs[digest]) for digest in ordered]
    await push_blobs(registry, repository, tag, blobs=blobs, manifests=manifests, auth=auth)
    return image
