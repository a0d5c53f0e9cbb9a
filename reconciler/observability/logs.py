"""One pipeline for every line: structlog's and the standard library's (uvicorn, httpx, websockets, git).

1. The level decides. 2. The line, whose event is a sentence, gets its time (UTC, RFC 3339, microseconds), its logger
and what is bound to the context, the revision above all: that of the pass, else the one in service. 3. ``redaction``
cleans every value. 4. It is written as one JSON object, or for a terminal as ``time level event key=value``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor

from reconciler.observability import redaction

Format = Literal["auto", "json", "text"]
Line = MutableMapping[str, Any]

QUIET: Final = ("asyncio", "git", "httpcore", "httpx", "uvicorn.access", "websockets")
"""Loggers of libraries that tell each request or command; their warnings are enough unless the level is DEBUG."""
OWN_HANDLERS: Final = ("uvicorn", "uvicorn.access", "uvicorn.error", "httpx", "websockets", "git")
FIRST_FIELDS: Final = ("time", "level", "event", "logger")
COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}
RESET: Final = "\x1b[0m"
_in_service: Callable[[], str] = str
"""Says which revision is in service; the empty string: none is."""


def configure(*, level: str = "INFO", format: Format = "auto", stream: TextIO | None = None) -> None:  # noqa: A002
    """Set up logging of the whole process; calling it again replaces the former set-up.

    ``auto`` writes text to a terminal and JSON to anything else. uvicorn must be started with ``log_config=None``.
    Raises ValueError for an unknown level.
    """
    output = sys.stderr if stream is None else stream
    text = format == "text" or (format == "auto" and output.isatty())
    handler = _Handler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_finish(text, output.isatty())],
            foreign_pre_chain=_start(),
        )
    )
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers = [handler]
    _calm_libraries(root.level)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_start(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def revision_by_default(in_service: Callable[[], str]) -> None:
    """Give every line the revision that is in service, unless it has one; none while there is none."""
    global _in_service  # noqa: PLW0603 - logging itself is one for the process
    _in_service = in_service


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Make the logger of a module. A line is a sentence and fields: ``log.info("published", generation=7)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def bind_revision(revision: str, **more: object) -> Iterator[None]:
    """Put ``revision`` (and more) into every line of this task, and of the tasks it starts, until the block ends."""
    with structlog.contextvars.bound_contextvars(revision=revision, **more):
        yield


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; a line that cannot be written is not worth a traceback full of values that were not cleaned."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        error = sys.exc_info()[1]
        line = {"time": _now(), "level": "error", "event": "a log line could not be written"}
        try:
            self.stream.write(
                json.dumps(line | {"logger": record.name, "error": type(error).__name__}) + self.terminator
            )
            self.flush()
        except (OSError, ValueError):
            # The stream itself is gone (a closed pipe); there is nobody left to tell.
            return


def _start() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _with_revision,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
    ]


def _finish(text: bool, colours: bool) -> Sequence[Processor]:
    return (
        _time,
        structlog.processors.format_exc_info,
        _clean,
        _TextLine(colours) if text else _json_line,
    )


def _calm_libraries(level: int) -> None:
    for name in OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET if level <= logging.DEBUG else logging.WARNING)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _time(_logger: object, _method: str, line: Line) -> Line:
    line["time"] = _now()
    return line


def _with_revision(_logger: object, _method: str, line: Line) -> Line:
    revision = "" if "revision" in line else _in_service()
    if revision:
        line["revision"] = revision
    return line


def _clean(_logger: object, _method: str, line: Line) -> Line:
    """Clean names and values, and put the usual fields first."""
    ordered = {name: line[name] for name in FIRST_FIELDS if name in line} | dict(line)
    cleaned: Line = {}
    for name, value in ordered.items():
        if name in ("exception", "stack"):
            cleaned[name] = redaction.clean_trace(str(value))
        else:
            cleaned[redaction.clean_name(str(name))] = redaction.clean_field(str(name), value)
    return cleaned


def _json_line(_logger: object, _method: str, line: Line) -> str:
    return json.dumps(line, allow_nan=True, separators=(",", ":"))


class _TextLine:
    """``time level event key=value``; each line of a traceback is set off: none can pass for a line of its own."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: object, _method: str, line: Line) -> str:
        level = str(line.pop("level", ""))
        head = f"{line.pop('time')} {self._coloured(level)} {line.pop('event', '')}"
        traces = [line.pop(name) for name in ("exception", "stack") if name in line]
        fields = "".join(f" {name}={_field(value)}" for name, value in line.items())
        set_off = "".join(f"\n    | {row}" for trace in traces for row in str(trace).splitlines())
        return f"{head}{fields}{set_off}"

    def _coloured(self, level: str) -> str:
        word = level.upper().ljust(7)
        return f"{COLOURS.get(level, '')}{word}{RESET}" if self._colours else word


def _field(value: object) -> str:
    if isinstance(value, str) and value and not any(character in value for character in " =\"'\\"):
        return value
    return json.dumps(value, ensure_ascii=False)
