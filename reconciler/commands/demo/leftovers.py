"""Ends what a demo that was killed, with all that looks after its end, has left running in its folder.

Only keepers of programs can be left: everything else ends with the demo (``supervisor``, ``reaper``). They are known by
their arguments, which name a directory of this folder, and they end their programs in order.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

KEEPER: Final = "agent.deployments.process_keeper"
SECONDS: Final = 8.0


def end_leftovers(root: Path) -> int:
    """Return how many there were. psutil sends no signal to another process that has got the same id."""
    found = [one for one in psutil.process_iter() if _is_ours(one, root)]
    for one in found:
        with suppress(psutil.Error):
            one.terminate()
    _, stubborn = psutil.wait_procs(found, SECONDS)
    for one in stubborn:
        with suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(stubborn, SECONDS)
    return len(found)


def _is_ours(process: psutil.Process, root: Path) -> bool:
    with suppress(psutil.Error):
        words = process.cmdline()
        runs_keeper = any(KEEPER in word for word in words)
        return runs_keeper and any(Path(word).is_relative_to(root / "agents") for word in words)
    return False
