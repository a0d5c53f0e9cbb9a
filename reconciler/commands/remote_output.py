"""What programs on agents wrote, printed so that no terminal takes any of it for a command."""

from __future__ import annotations

import sys
from typing import TextIO

from schemas.deployments_api import CommandLine
from schemas.text import visible


class Printer:
    """Prints lines of an answer. Where several agents speak, or with ``named``, each line has the name of who wrote it;
    all that speak at once are known before the first text comes.
    """

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None, *, named: bool = False) -> None:
        self._named = named
        self.ended = False
        """Every agent that spoke has ended, and at least one did."""
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._speaking: set[str] = set()
        self._known: list[str] = []
        self._rest: dict[tuple[str, str], str] = {}

    def take(self, line: CommandLine) -> None:
        """Print one."""
        if line.agent not in self._known:
            self._known.append(line.agent)
            self._speaking.add(line.agent)
        if line.dropped:
            self._stderr.write(f"({line.dropped} lines of {visible(line.agent)} left out: nobody took them in time)\n")
        if line.text:
            self._print(line)
        if line.ended:
            self._speaking.discard(line.agent)
            self._flush(line.agent)
        self.ended = not self._speaking

    def finish(self) -> None:
        """Print what has no end of line yet."""
        for agent in self._known:
            self._flush(agent)

    def _print(self, line: CommandLine) -> None:
        stream = self._stderr if line.stream == "stderr" else self._stdout
        if len(self._known) == 1 and not self._named:
            stream.write(shown(line.text, stream))
        else:
            slot = (line.agent, line.stream)
            *whole, self._rest[slot] = (self._rest.get(slot, "") + line.text).split("\n")
            stream.writelines(f"{visible(line.agent)} | {shown(one, stream)}\n" for one in whole)
        stream.flush()

    def _flush(self, agent: str) -> None:
        for name, stream in (("stdout", self._stdout), ("stderr", self._stderr)):
            rest = self._rest.pop((agent, name), "")
            if rest:
                stream.write(f"{visible(agent)} | {shown(rest, stream)}\n")
                stream.flush()


def shown(text: str, stream: TextIO) -> str:
    """Return text for a stream: a terminal gets escapes in place of what it could take for a command."""
    if not stream.isatty():
        return text
    return "\n".join("\t".join(map(visible, line.removesuffix("\r").split("\t"))) for line in text.split("\n"))
