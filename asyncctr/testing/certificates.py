"""Keys and certificates for tests, made by the openssl program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from asyncctr.testing.programs import run

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TlsFiles", "make_authority", "make_signing_key"]

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@attrs.frozen(kw_only=True)
class TlsFiles:
    """Paths of PEM files: a certificate authority, and a server's and a client's certificate and key signed by it."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


async def make_authority(
    directory: Path, *, hosts: tuple[str, ...] = ("DNS:localhost", "IP:127.0.0.1", "IP:::1")
) -> TlsFiles:
    """A certificate authority in ``directory`` and one server's and one client's certificate, valid for two days.

    Args:
        directory: where the files go; the keys are readable by their owner alone.
        hosts: the server's subjectAltName entries, in openssl's form.

    The files have the names that the Docker CLI looks for in ``DOCKER_CERT_PATH``: ca.pem, cert.pem, key.pem.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240 - three small files, before tests run
    ca, ca_key = directory / "ca.pem", directory / "ca-key.pem"
    await run(
        *("openssl", "req", "-x509", *_NEW_KEY, "-days", "2", "-subj", "/CN=asyncctr test authority"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", ca_key, "-out", ca),
    )
    files = TlsFiles(
        ca=ca,
        server_cert=directory / "server-cert.pem",
        server_key=directory / "server-key.pem",
        client_cert=directory / "cert.pem",
        client_key=directory / "key.pem",
    )
    for name, usage, cert, key in (
        (
            "localhost",
            f"extendedKeyUsage=serverAuth\nsubjectAltName={','.join(hosts)}\n",
            files.server_cert,
            files.server_key,
        ),
        ("asyncctr test client", "extendedKeyUsage=clientAuth\n", files.client_cert, files.client_key),
    ):
        request, extensions = cert.with_suffix(".csr"), cert.with_suffix(".ext")
        extensions.write_text(f"basicConstraints=CA:FALSE\n{usage}")
        await run("openssl", "req", "-new", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        await run(
            *("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"),
            *("-days", "2", "-extfile", extensions, "-out", cert),
        )
    return files


async def make_signing_key(directory: Path) -> tuple[Path, Path]:
    """An RSA key to sign tokens with and its self-signed certificate: the two paths, in this order."""
    key, cert = directory / "token-key.pem", directory / "token-cert.pem"
    await run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=asyncctr test tokens", "-keyout", key, "-out", cert),
    )
    return key, cert
