"""What the container engine and the way to it say when something fails, in words for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
from aiodocker.exceptions import DockerError

from agent.deployments.driver import DriverError

_NOT_CONNECTED: Final = 900
"""The status that the library gives where there is no engine."""
_LONGEST: Final = 500
BEING_REMOVED: Final = "BeingRemoved"
_SAID: Final = (
    (r"port is already allocated|address already in use", "PortTaken", "A port that it needs is taken: {}", True),
    (r"no space left on device", "DiskFull", "The disk of the agent is full: {}", True),
    (r"exec: .*(no such file|not found)", "CannotStart", "Its program is not in the image: {}", False),
    (r"exec: .*permission denied", "CannotStart", "Its program may not be run: {}", False),
    (r"no command specified", "CannotStart", "Neither the image nor the deployment names a program: {}", False),
    (r"is already in use by container", "NameTaken", "A container that is not ours has its name: {}", True),
    (r"removal of container .* is already in progress", BEING_REMOVED, "It is on its way out: {}", True),
)
"""What it says, the reason and the sentence for it, and whether it may pass."""


@contextmanager
def translated() -> Iterator[None]:
    """Let out nothing but DriverError."""
    try:
        yield
    except DockerError as error:
        raise of_engine(error) from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise unavailable(type(error).__name__) from None


def of_engine(error: DockerError) -> DriverError:
    """Say what the engine said."""
    if error.status == _NOT_CONNECTED:
        return unavailable("it cannot be reached")
    said = " ".join(str(error.message).split())[-_LONGEST:]
    for part, reason, text, retryable in _SAID:
        if re.search(part, said, re.IGNORECASE):
            return DriverError(reason, text.format(said), retryable=retryable)
    if error.status == 404:
        return DriverError("NotThere", f"The container engine does not have it: {said}", retryable=True)
    return DriverError("EngineRefused", f"The container engine refused it: {said}", retryable=error.status >= 500)


def unavailable(why: str) -> DriverError:
    text = f"The container engine does not answer ({why}); what runs goes on running."
    return DriverError("EngineUnavailable", text, engine=True)
