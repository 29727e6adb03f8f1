"""Write the Python modules beside the ``.proto`` files, or check with ``--check`` that they are what would be written.

For each folder ``proto`` below the package: a module ``schema.py`` with the serialized schema, for each file a module with its
messages and type stubs for it, and ``services.py`` with the services' methods. Run by ``nox -s protos``, checked by ``nox -s lint``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("asyncctr/backends/containerd/proto", "asyncctr/buildkit/proto")
WELL_KNOWN = "google/protobuf/"


def compile_folder(folder: Path, into: Path) -> descriptor_pb2.FileDescriptorSet:
    """Run protoc: type stubs below ``into``, and the schema."""
    files = sorted(str(path.relative_to(ROOT)) for path in folder.glob("*.proto"))
    schema = into / "schema.binpb"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--proto_path={ROOT}",
            f"--descriptor_set_out={schema}",
            "--include_imports",
            f"--mypy_out=quiet:{into}",
            *files,
        ],
        check=True,
    )
    return descriptor_pb2.FileDescriptorSet.FromString(schema.read_bytes())


def literal(data: bytes) -> str:
    """Bytes as Python source, in lines of 64 bytes."""
    lines = (data[start : start + 64] for start in range(0, len(data), 64))
    return "(\n" + "".join(f"    {line!r}\n" for line in lines) + ")"


def modules(folder: Path, schema: descriptor_pb2.FileDescriptorSet) -> dict[str, str]:
    """The texts of the Python modules, by their names."""
    package = ".".join(folder.relative_to(ROOT).parts)
    own = [file for file in schema.file if not file.name.startswith(WELL_KNOWN)]
    for file in own:
        # The order in which protoc meets the files is no part of what they say.
        file.ClearField("source_code_info")
    texts = {
        "schema.py": (
            '"""The messages of the files here; generated, see ``nox -s protos``."""\n\n'
            "from asyncctr.transport.protobuf import Schema\n\n"
            f"SCHEMA = Schema(\n    {literal(schema.SerializeToString(deterministic=True))}\n)\n"
        )
    }
    for file in own:
        stem = Path(file.name).stem
        texts[f"{stem}_pb2.py"] = (
            f'"""Messages of ``{stem}.proto``; generated, see ``nox -s protos``."""\n\n'
            f"from {package}.schema import SCHEMA\n\n"
            f"globals().update(SCHEMA.names({file.name!r}))\n"
        )
    texts["services.py"] = services(package, own)
    return texts


def services(package: str, files: list[descriptor_pb2.FileDescriptorProto]) -> str:
    """The module with the services' methods."""
    blocks: list[str] = []
    imports: set[str] = set()
    where = {
        f".{file.package}.{message.name}": f"{Path(file.name).stem}_pb2"
        for file in files
        for message in file.message_type
    }

    def kind(name: str) -> str:
        short = name.rpartition(".")[2]
        if name.startswith(".google.protobuf."):
            imports.add(f"from google.protobuf.{short.lower()}_pb2 import {short}")
            return short
        imports.add(f"from {package} import {where[name]}")
        return f"{where[name]}.{short}"

    for file in files:
        for service in file.service:
            lines = [f'class {service.name}:\n    """``{file.package}.{service.name}``."""\n']
            for method in service.method:
                path = f"/{file.package}.{service.name}/{method.name}"
                types = f"{kind(method.input_type)}, {kind(method.output_type)}"
                names = f"SCHEMA, {method.input_type[1:]!r}, {method.output_type[1:]!r}"
                lines.append(f"    {method.name}: Final[Method[{types}]] = Method.of({path!r}, {names})")
            blocks.append("\n".join(lines))
    head = (
        '"""The services of the files here, method by method; generated, see ``nox -s protos``."""\n\n'
        "from __future__ import annotations\n\nfrom typing import TYPE_CHECKING, Final\n\n"
        f"from {package}.schema import SCHEMA\nfrom asyncctr.transport.grpc import Method\n\n"
    )
    lazily = "if TYPE_CHECKING:\n" + "".join(f"    {line}\n" for line in sorted(imports))
    return head + lazily + "\n\n" + "\n\n\n".join(blocks) + "\n"


def main() -> int:
    """Write or check; the exit code."""
    check = "--check" in sys.argv[1:]
    stale: list[str] = []
    for name in FOLDERS:
        folder = ROOT / name
        with tempfile.TemporaryDirectory() as scratch:
            into = Path(scratch)
            texts = modules(folder, compile_folder(folder, into))
            texts |= {path.name: path.read_text() for path in (into / name).glob("*.pyi")}
            for file, text in texts.items():
                path = into / file
                path.write_text(text)
            subprocess.run(
                ["ruff", "format", "--quiet", "--config", str(ROOT / "pyproject.toml"), str(into)], check=True
            )
            for file in texts:
                text = (into / file if (into / file).exists() else into / name / file).read_text()
                target = folder / file
                if not target.exists() or target.read_text() != text:
                    stale.append(str(target.relative_to(ROOT)))
                    if not check:
                        target.write_text(text)
    if check and stale:
        sys.stderr.write(f"not what the .proto files say: {', '.join(stale)}; run nox -s protos\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
