"""What to say on a new machine so that it becomes an agent (docs/installing.md). Pure.

Nothing is trusted before the key is the pinned one, and the token passes through standard input, not an argument.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple


class Doorway(NamedTuple):
    """How new agents reach the control plane. Without ``fingerprint`` the roots of the agent's system count."""

    server: str
    """Public URL."""
    fingerprint: str = ""
    """SHA-256 of the fleet's root, in hex."""
    pin: str = ""
    """Key that the control plane presents, as ``curl --pinnedpubkey`` takes it (RFC 7469, 2.4)."""

    @property
    def is_pinned(self) -> bool:
        """Say whether the authority is the fleet's own."""
        return bool(self.fingerprint) and self.server.startswith("https:")


def install_line(doorway: Doorway, name: str, token: str) -> str:
    """Return the line that makes a new machine the agent ``name``."""
    server = doorway.server
    curl = ["curl", "-qfsS", "--proto", "=https"] if server.startswith("https:") else ["curl", "-qfsS"]
    words = ["install.sh", "--server", server]
    if doorway.is_pinned:
        curl += ["-k", "--pinnedpubkey", doorway.pin]
        words += ["--ca-sha256", doorway.fingerprint]
    fetch, given = shlex.join([*curl, f"{server}/install.sh"]), shlex.join([*words, "--name", name])
    return f'script=$({fetch}) && printf \'%s\\n\' "{token}" | sudo sh -c "$script" {given}'


def enrol_command(doorway: Doorway, name: str) -> str:
    """Return what to run on a machine that has ``cloudlunacy``, with the token on its standard input."""
    words = ["cloudlunacy", "agent", "enrol", "--server", doorway.server]
    if doorway.is_pinned:
        words += ["--ca-sha256", doorway.fingerprint]
    return shlex.join([*words, "--token-file", "-", "--name", name, "--data", "DIR"])
