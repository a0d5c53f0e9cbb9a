"""Nothing that a test starts outlives the tests, even when they are killed and no fixture tears anything down."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path


def tied(command: Sequence[str | Path], number: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return the command so that the program gets ``number`` when the thread that starts it ends.

    The process id stays the program's own: util-linux's ``setpriv`` asks for the signal (``prctl(2)``,
    ``PR_SET_PDEATHSIG``) and becomes the program. Where it is missing, as outside Linux, the command stays as it is.
    """
    words = [str(word) for word in command]
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return words
    return [setpriv, "--pdeathsig", number.name.removeprefix("SIG"), "--", *words]
