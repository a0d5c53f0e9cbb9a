"""Brings an installed agent to another release, and back by itself where that one does not connect.

1. The release is made beside the running one, and has to answer with its version.
2. The link to the current release is changed, and the agent started anew. What it runs goes on meanwhile.
3. The new one has to be connected within a minute and a half; else the link is changed back and the former one started.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.installing.machine import CONNECT_SECONDS, Machine
from agent.installing.plan import Cannot
from agent.installing.releases import Release, Releases


def upgrade(
    releases: Releases, machine: Machine, release: Release, wheel: Path | None, say: Callable[[str], None]
) -> None:
    """Make ``release`` the one that runs; without ``wheel`` it is there already.

    Raises:
        Cannot: nothing was changed, or everything is as it was; the message says which.
    """
    former = releases.current()
    if former is None:
        raise Cannot("the program was not installed by install.sh; upgrade it in the way in which it was installed.")
    if former == release.name:
        say(f"{release.version} runs already; starting it anew changes nothing")
        return
    if wheel is not None:
        say(f"making release {release.name}")
        releases.make(release, wheel)
    before = releases.previous()
    say(f"switching from {former} to {release.name}")
    releases.switch(release.name)
    try:
        machine.restart()
        machine.await_connection(release.version)
    except Cannot as error:
        say(f"{release.name} does not work; going back to {former}")
        releases.switch_back(former, before)
        machine.restart()
        try:
            machine.await_connection(at_least=CONNECT_SECONDS)
        except Cannot as second:
            text = f"{error} The former release, {former}, was started again and does not connect either: {second}"
            raise Cannot(text) from None
        raise Cannot(f"{error} The former release, {former}, runs again and is connected.") from None
    releases.forget()
    say(f"connected with version {release.version}; {former} is kept, for: cloudlunacy agent upgrade --back")
