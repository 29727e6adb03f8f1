"""What a daemon tells of a build, as events; and what is known when it fails."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections import deque
from typing import TYPE_CHECKING, Any

from asyncctr.core.build import BuildEvent
from asyncctr.core.errors import AsyncctrError, BuildError, ResourceExhaustedError
from asyncctr.oci.dockerfile import line_of, undeclared_arguments
from asyncctr.oci.remote_context import without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncctr.buildkit.channel import Detail
    from asyncctr.buildkit.proto.control_pb2 import StatusResponse, Vertex

__all__ = ["BuildProgress"]

_TAIL = 50
_LINE_LIMIT = 4096
_CANCELED = "context canceled"

_NUMBERED = re.compile(r"\[(?:(?P<stage>\S+) )?\d+/\d+\] ")
_LABEL = re.compile(r"\[[^\]]*\] ")
_EXIT = re.compile(r"exit code: (\d+)")
_PARSE_LINE = re.compile(r"parse error (?:on )?line (\d+)|on line (\d+)|Dockerfile:(\d+)", re.IGNORECASE)
_EXHAUSTED = re.compile(
    r"no space left on device|disk quota exceeded|cannot allocate memory|too many open files", re.IGNORECASE
)
_WRAPPING = re.compile(r"^(?:failed to solve(?: with frontend [\w.]+)?: |rpc error: code = \w+ desc = )+")


class _Step:
    def __init__(self, name: str) -> None:
        self.name = name
        self.error = ""
        self.cached = False
        self.told: tuple[object, ...] = ()
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.partial = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def keep(self, text: str) -> None:
        for line in (self.partial + text).splitlines(keepends=True):
            if line.endswith("\n") or len(line) > _LINE_LIMIT:
                self.tail.append(line.rstrip("\r\n")[:_LINE_LIMIT])
                self.partial = ""
            else:
                self.partial = line

    @property
    def output(self) -> tuple[str, ...]:
        return tuple([*self.tail, self.partial] if self.partial else self.tail)[-_TAIL:]

    @property
    def instruction(self) -> str:
        """As the Dockerfile has it."""
        return _LABEL.sub("", self.name, count=1)


class BuildProgress:
    """Of one build.

    Args:
        on_event: told everything; may raise.
        context: the build's, whose credentials are not shown.

    Attributes:
        dockerfile: its text where it is known on this side, for the lines of steps.
        warnings: in order.
    """

    def __init__(self, on_event: Callable[[BuildEvent], None] | None, context: object) -> None:
        self._on_event = on_event
        self._context = context
        self._steps: dict[str, _Step] = {}
        self._failed: _Step | None = None
        self.dockerfile = ""
        self.warnings: list[str] = []

    @property
    def cached_steps(self) -> int:
        """How many of the Dockerfile's own steps came from the cache."""
        return sum(step.cached for step in self._steps.values())

    @property
    def begun(self) -> bool:
        """Whether any step has been heard of."""
        return bool(self._steps)

    def feed(self, status: StatusResponse) -> None:
        """One message of the daemon's."""
        for vertex in status.vertexes:
            self._begin(vertex)
        for transfer in status.statuses:
            step = self._steps.get(transfer.vertex)
            self._event(
                BuildEvent(
                    kind="progress",
                    step="" if step is None else step.name,
                    message=self._shown(transfer.id or transfer.name),
                    current=transfer.current,
                    total=transfer.total or None,
                )
            )
        for log in status.logs:
            step = self._steps.get(log.vertex)
            if step is None:
                continue
            text = step.decoder.decode(log.msg)
            if text:
                step.keep(text)
                self._event(BuildEvent(kind="log", step=step.name, message=text))
        for warning in status.warnings:
            step = self._steps.get(warning.vertex)
            self._warning("" if step is None else step.name, warning.short.decode(errors="replace"))
        # After what they said before they ended.
        for vertex in status.vertexes:
            self._complete(vertex)

    def _begin(self, vertex: Vertex) -> None:
        step = self._steps.get(vertex.digest)
        if step is None:
            step = self._steps[vertex.digest] = _Step(self._shown(vertex.name))
        if vertex.HasField("started") and not step.told:
            step.told = ("started",)
            self._event(BuildEvent(kind="vertex", step=step.name, message="started"))

    def _complete(self, vertex: Vertex) -> None:
        step = self._steps[vertex.digest]
        if not vertex.HasField("completed"):
            return
        # It may complete several times, and the last one counts.
        step.error = self._shown(vertex.error)
        if step.error and not step.error.endswith(_CANCELED):
            self._failed = step
        cached = vertex.cached and _is_own(step.name)
        # Told as such once, so that the events of cached steps are as many as these.
        shown = cached and not step.cached
        step.cached = step.cached or cached
        ended = ("failed" if step.error else "completed", step.cached)
        if step.told != ended:
            step.told = ended
            self._event(BuildEvent(kind="vertex", step=step.name, message=ended[0], cached=shown))

    def finish(self, arguments: Iterable[str]) -> None:
        """The build has succeeded; older daemons do not tell which build arguments it had no use for."""
        unused = undeclared_arguments(self.dockerfile, arguments) if self.dockerfile else []
        if unused and not any("build-args" in warning for warning in self.warnings):
            self._warning("", f"One or more build-args [{' '.join(unused)}] were not consumed")

    def _warning(self, step: str, message: str) -> None:
        text = self._shown(message).strip()
        if text not in self.warnings:
            self.warnings.append(text)
            self._event(BuildEvent(kind="warning", step=step, message=text))

    def _shown(self, text: str) -> str:
        return without_credentials(text, self._context)

    def _event(self, event: BuildEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def error(self, message: str, details: Sequence[Detail], *, backend: str, name: str, status: str) -> AsyncctrError:
        """The build has failed: why, as an error.

        Args:
            message: the daemon's.
            details: what came with it.
            backend: for the error.
            name: of the image.
            status: the daemon's.
        """
        step = self._failed
        text = _WRAPPING.sub("", self._shown(message).strip())
        if step is not None and step.error and (not text or text.endswith(_CANCELED)):
            text = step.error
        if _EXHAUSTED.search(text):
            return ResourceExhaustedError(text, backend=backend, resource=name, status=status)
        instruction = "" if step is None else step.instruction
        code = next((int(detail.document["Code"]) for detail in details if _has_code(detail)), None)
        if code is None and (match := _EXIT.search(text)):
            code = int(match[1])
        line = next((line for detail in details if (line := _line(detail)) is not None), None)
        if line is None and instruction:
            line = line_of(self.dockerfile, instruction)
        if line is None and (match := _PARSE_LINE.search(text)):
            line = int(match[1] or match[2] or match[3])
        if line is not None and not instruction:
            instruction = _instruction(details, line) or _nth(self.dockerfile, line)
        return BuildError(
            f"{name}: {text}",
            step=instruction,
            line=line,
            output=() if step is None else step.output,
            exit_code=code,
            backend=backend,
            resource=name,
            status=status,
        )


def _is_own(name: str) -> bool:
    """Whether a step is one of the Dockerfile's that can come from the cache: a base image is there, or is not."""
    match = _NUMBERED.match(name)
    return match is not None and match["stage"] != "internal" and not name[match.end() :].startswith("FROM ")


def _has_code(detail: Detail) -> bool:
    return "ExitMessage" in detail.kind and isinstance(detail.document.get("Code"), int)


def _is_source(detail: Detail) -> bool:
    return detail.kind.partition("+")[0].endswith("errdefs.Source")


def _line(detail: Detail) -> int | None:
    """Where the error is in the Dockerfile."""
    ranges: Any = detail.document.get("ranges") if _is_source(detail) else None
    try:
        return int(ranges[0]["start"]["line"]) if ranges else None
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _instruction(details: Sequence[Detail], line: int) -> str:
    """A line of the Dockerfile that came with the error."""
    for detail in details:
        info: Any = detail.document.get("info") if _is_source(detail) else None
        if isinstance(info, dict) and isinstance(info.get("data"), str):
            try:
                return _nth(base64.b64decode(info["data"]).decode(errors="replace"), line)
            except binascii.Error:
                continue
    return ""


def _nth(text: str, line: int) -> str:
    lines = text.splitlines()
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""
