"""What programs on agents wrote, as it is printed here."""

from __future__ import annotations

import io

import pytest

from reconciler.commands.remote_output import Printer
from schemas.deployments_api import CommandLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(*lines: CommandLine, terminal: bool = True, named: bool = False) -> tuple[str, str, bool]:
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    printer = Printer(out, err, named=named)
    for line in lines:
        printer.take(line)
    printer.finish()
    return out.getvalue(), err.getvalue(), printer.ended


def said(text: str, agent: str = "vps-1", **more: object) -> CommandLine:
    return CommandLine.model_validate({"agent": agent, "text": text, **more})


def test_a_terminal_takes_nothing_for_a_command() -> None:
    """Escapes are shown and not sent, also when they come in two pieces; lines and tabs stay."""
    out, err, _ = printed(said("a\tb\x1b"), said("]0;title\x07\r\nnext\u202e\n"), said("\x9b2J", stream="stderr"))
    assert out == "a\tb\\x1b]0;title\\x07\nnext\\u202e\n"
    assert err == "\\x9b2J"


def test_a_pipe_gets_what_was_written() -> None:
    """Whoever takes the output into a file gets each byte of the text."""
    assert printed(said("a\x1b[31m\r\nb"), terminal=False)[0] == "a\x1b[31m\r\nb"


def test_of_several_agents_each_line_is_named() -> None:
    """Lines are whole, whatever pieces they come in, and the last needs no end."""
    out, _, ended = printed(
        said("", "vps-1"), said("", "vps-2"), said("on"), said("two\n", "vps-2"), said("e\nrest"),
        said("", "vps-1", ended=True), said("", "vps-2", ended=True),
    )  # fmt: skip
    assert out == "vps-2 | two\nvps-1 | one\nvps-1 | rest\n"
    assert ended


@pytest.mark.parametrize(("agents", "ended"), [((), False), (("vps-1",), False), (("vps-1", "vps-2"), True)])
def test_it_is_over_when_all_have_ended(agents: tuple[str, ...], ended: bool) -> None:
    """An answer that breaks off before is known by that."""
    begun = [said("", name) for name in ("vps-1", "vps-2")]
    assert printed(*begun, *(said("", name, ended=True) for name in agents))[2] is ended


def test_what_was_left_out_is_told() -> None:
    """The number of lines that nobody took in time is said beside the output."""
    assert printed(said("x\n", dropped=7))[:2] == (
        "x\n",
        "(7 lines of vps-1 left out: nobody took them in time)\n",
    )
