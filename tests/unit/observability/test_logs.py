from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from reconciler.observability.logs import bind_revision, configure, get_logger, revision_by_default

REVISION = "a1" * 20


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    revision_by_default(str)


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure(stream=stream)
    return stream


def fail(message: str) -> None:
    raise ValueError(message)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    """Time, level, event and logger come first, then what was given."""
    get_logger("reconciler.loop").info("published", generation=7, agents=["vps-1"])
    (line,) = lines(stream)
    assert list(line) == ["time", "level", "event", "logger", "generation", "agents"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "event": "published",
        "logger": "reconciler.loop",
        "generation": 7,
        "agents": ["vps-1"],
    }


def test_the_revision_is_in_every_line_of_a_reconcile(stream: io.StringIO) -> None:
    """Lines of any library, and of tasks started inside, carry the revision; lines outside and beside do not."""

    async def beside(started: asyncio.Event) -> None:
        await started.wait()
        get_logger("beside").info("beside")

    async def inside() -> None:
        logging.getLogger("reconciler.git").warning("inside a task")

    async def scenario() -> None:
        started = asyncio.Event()
        other = asyncio.create_task(beside(started))
        with bind_revision(REVISION, generation=7):
            started.set()
            get_logger("a").info("structlog")
            await asyncio.create_task(inside())
            await other
        get_logger("a").info("after")

    asyncio.run(scenario())
    assert {line["event"]: (line.get("revision"), line.get("generation")) for line in lines(stream)} == {
        "structlog": (REVISION, 7),
        "inside a task": (REVISION, 7),
        "beside": (None, None),
        "after": (None, None),
    }


def test_a_line_outside_of_a_pass_has_the_revision_in_service(stream: io.StringIO) -> None:
    """Libraries' lines as well; a pass has its own, and before anything is in service there is none."""
    in_service = [""]
    revision_by_default(lambda: in_service[0])
    get_logger("x").info("nothing yet")
    in_service[0] = REVISION
    get_logger("x").warning("pass failed, trying again")
    logging.getLogger("uvicorn.error").warning("a library")
    with bind_revision("b2" * 20):
        get_logger("x").info("published")
    assert [line.get("revision") for line in lines(stream)] == [None, REVISION, REVISION, "b2" * 20]


@pytest.mark.parametrize("name", ["uvicorn.error", "websockets.server", "httpx", "git.cmd", "py.warnings"])
def test_libraries_go_through_the_same_pipeline(stream: io.StringIO, name: str) -> None:
    """A warning of a library is a JSON line, cleaned like our own."""
    logging.getLogger(name).warning("%s failed\n%s", "ls-remote", "https://bot:hunter2@git.test/")
    (line,) = lines(stream)
    assert line["logger"] == name
    assert line["event"] == "ls-remote failed\\nhttps://[redacted]@git.test/"


@pytest.mark.parametrize("name", ["uvicorn.access", "httpx", "websockets.client", "git.cmd"])
def test_the_chatter_of_libraries_is_quiet_unless_debugging(name: str) -> None:
    """Each request or command is told at level DEBUG only."""
    for level, expected in (("INFO", 0), ("DEBUG", 1)):
        stream = io.StringIO()
        configure(stream=stream, level=level)
        logging.getLogger(name).info("GET / 200")
        assert len(lines(stream)) == expected


def test_the_level_decides(stream: io.StringIO) -> None:
    """Lines below the level are not written, and an unknown level is refused."""
    get_logger("a").debug("unseen")
    configure(stream=stream, level="warning")
    get_logger("a").info("unseen")
    assert lines(stream) == []
    with pytest.raises(ValueError, match="LOUD"):
        configure(level="loud", stream=stream)


def test_an_exception_is_told_without_its_secrets(stream: io.StringIO) -> None:
    """A traceback is in the field ``exception``, cleaned, on the one line, from either library."""
    for log in (get_logger("a"), logging.getLogger("b")):
        try:
            fail("\x1b[2J password=hunter2")
        except ValueError:
            log.exception("failed")
    assert len(lines(stream)) == 2
    for line in lines(stream):
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("ValueError: \\x1b[2J password=[redacted]")


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_value_can_forge_a_line(form: Any) -> None:
    """Whatever a call is given, it makes one line without control characters."""
    stream = io.StringIO()
    configure(stream=stream, format=form)
    evil = '\r\n2026-01-01T00:00:00.000000Z ERROR forged\x1b[31m\u2028\x85"}'
    log = get_logger("a")
    log.info(evil, **{evil: evil, "nested": {evil: [evil]}})
    logging.getLogger(f"b{evil}").warning(evil)
    try:
        fail(evil)
    except ValueError:
        log.exception("failed")
    output = stream.getvalue()
    own = [line for line in output.split("\n") if line and not line.startswith("    | ")]
    assert len(own) == 3
    assert not any(line.startswith("2026-01-01T00:00:00.000000Z") for line in own)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", output)


def test_text_is_for_people() -> None:
    """On a terminal a line is time, level, event and key=value, in colour; elsewhere without colour."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, file = Terminal(), io.StringIO()
    configure(stream=terminal)
    get_logger("a").warning("held", reason="too many", revision="a1")
    configure(stream=file, format="text")
    get_logger("a").warning("held", reason="too many", revision="a1")
    assert file.getvalue()[27:] == ' WARNING held logger=a reason="too many" revision=a1\n'
    assert terminal.getvalue()[27:] == ' \x1b[33mWARNING\x1b[0m held logger=a reason="too many" revision=a1\n'


def test_a_line_that_cannot_be_made_says_so_and_nothing_more(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong format arguments cost that line; no traceback and no value is shown."""
    configure(stream=stream)  # pytest's own handler, which would fail too, goes
    logging.getLogger("a").warning("%d", "hunter2")
    (line,) = lines(stream)
    assert line["event"] == "a log line could not be written"
    assert "hunter2" not in stream.getvalue()
    assert capsys.readouterr() == ("", "")


def test_a_closed_stream_ends_nothing() -> None:
    """Logging to a pipe that is gone raises nothing."""

    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    configure(stream=Closed())
    get_logger("a").error("unseen")


def test_positional_arguments_are_filled_in(stream: io.StringIO) -> None:
    """structlog's loggers take %-arguments as the standard library's do."""
    get_logger("a").info("%s of %d", "one", 2)
    assert lines(stream)[0]["event"] == "one of 2"


def test_configuring_twice_writes_once() -> None:
    """A second set-up replaces the first."""
    first, second = io.StringIO(), io.StringIO()
    configure(stream=first)
    configure(stream=second)
    get_logger("a").info("x")
    assert (len(lines(first)), len(lines(second))) == (0, 1)


def test_an_event_is_a_sentence() -> None:
    """One style everywhere: words with spaces, and no names with dots and hyphens."""
    names = re.compile(r"""\blog\.\w+\(\s*"([a-z]+\.[a-z-]+)\"""")
    root = Path(__file__).parents[3]
    sources = [path for folder in ("reconciler", "agent") for path in Path(root, folder).rglob("*.py")]
    assert [found for path in sources for found in names.findall(path.read_text())] == []
