"""The exit codes of the command line."""

from __future__ import annotations

__all__ = ["BROKEN_PIPE", "FAILURE", "NOT_EXECUTABLE", "NOT_FOUND", "RUN_FAILURE", "TIMED_OUT", "USAGE"]

FAILURE = 1
USAGE = 2

TIMED_OUT = 124
"""``run --timeout`` passed; the code of timeout(1)."""
RUN_FAILURE = 125
"""``run`` itself failed, not the container; this one and the next two are those of ``docker run`` and env(1)."""
NOT_EXECUTABLE = 126
NOT_FOUND = 127

BROKEN_PIPE = 128 + 13
"""The reader of the output has gone: 128 and SIGPIPE, which programs usually die of then."""
