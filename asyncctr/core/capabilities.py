"""What a backend can do here, probed when it is opened."""

from __future__ import annotations

from enum import StrEnum

import attrs

from asyncctr.core.errors import UnsupportedError
from asyncctr.core.validation import names

__all__ = ["BackendCapabilities"]


@attrs.frozen(kw_only=True)
class BackendCapabilities:
    """What works here. ``isinstance`` with a protocol says that methods exist; this says that they work.

    Attributes:
        reports_signal: the runtime tells a signal from an exit code of 128 + n.
        reports_oom: the runtime tells whether the memory limit killed a process.
        refused_fields: dotted names of fields and parameters that raise ``UnsupportedError``, such as ``"network.mtu"``,
            or of values of fields, such as ``"network.mode.host"``.
    """

    supports_memory: bool = False
    supports_cpu: bool = False
    supports_storage: bool = False
    supports_pids: bool = False
    supports_memory_swap: bool = False
    supports_build: bool = False
    supports_oci: bool = False
    supports_networking: bool = False
    supports_volumes: bool = False
    supports_exec: bool = False
    supports_stdin: bool = False
    supports_copy: bool = False
    supports_stats: bool = False
    supports_events: bool = False
    supports_pause: bool = False
    supports_separate_stderr: bool = False
    supports_snapshot: bool = False
    reports_signal: bool = False
    reports_oom: bool = False
    refused_fields: frozenset[str] = attrs.field(default=frozenset(), converter=names)

    def refuse(self, config: object, *, backend: str) -> None:
        """Raise ``UnsupportedError`` for the first refused field that ``config`` sets to something other than nothing."""
        for field in self.refused_fields:
            value: object = config
            for name in field.split("."):
                # The name of a value follows that of a field of which only some are refused.
                value = value == name if isinstance(value, StrEnum) else getattr(value, name, None)
            if value not in (None, "", (), 0) and value != {}:
                message = f"{field}: the {backend} backend cannot honour this here; leave it unset"
                raise UnsupportedError(message, field=field, backend=backend)
