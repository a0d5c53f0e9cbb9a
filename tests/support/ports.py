"""Ports for servers that must be told theirs beforehand.

They lie below the range from which the kernel takes ports for outgoing connections: one from that range may be given to
a connection between the moment at which it was found free and the moment at which a server binds it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import Final

_FIRST: Final = 10_240
_LAST: Final = 32_000
_TURN: Final = Path(tempfile.gettempdir()) / f"cloudlunacy-test-ports-{os.getuid()}"
"""Where every process of every run on this machine notes the last port that was given out."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody holds, and that no other test is given until all others were."""
    with _TURN.open("a+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        last = turn.read()
        port = int(last) if last.isdigit() else _FIRST
        for _ in range(_FIRST, _LAST):
            port = port + 1 if _FIRST <= port < _LAST else _FIRST
            if _is_free(port):
                turn.truncate(0)
                turn.write(str(port))
                return port
    raise AssertionError("every port is taken")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
