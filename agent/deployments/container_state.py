"""What the container engine shows of a container, read into what is planned with. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from agent.deployments.observed import Instance, State
from agent.deployments.workload import Key, Slot

_STATES: Final[Mapping[str, State]] = {
    "created": "created",
    "configured": "created",
    "initialized": "created",
    "running": "running",
    "restarting": "restarting",
    "paused": "paused",
}
KEPT: Final = "_kept"
"""End of the name of a container that is good, where the engine cannot be told to start it again."""
_KILLED: Final = frozenset({128 + 9, 128 + 15, 255})
"""Exit codes of what was ended from outside; 255 is what an engine that ended knows."""


def read_instance(shown: Mapping[str, Any], key: Key, digest: str, slot: Slot) -> Instance:
    """Read what the engine shows of a container."""
    state, host, network = shown["State"], shown["HostConfig"], shown["NetworkSettings"]
    code = int(state["ExitCode"])
    ended = _STATES.get(str(state["Status"]), "exited") == "exited"
    addresses = [str(one.get("IPAddress") or "") for one in (network.get("Networks") or {}).values()]
    return Instance(
        id=str(shown["Id"]),
        key=key,
        digest=digest,
        slot=slot,
        state=_STATES.get(str(state["Status"]), "exited"),
        kept=(host.get("RestartPolicy") or {}).get("Name") == "unless-stopped" or str(shown["Name"]).endswith(KEPT),
        exit_code=code if ended else None,
        killed=ended and code in _KILLED and not state.get("OOMKilled", False),
        ran_seconds=_between(str(state["StartedAt"]), str(state["FinishedAt"])) if ended else None,
        started=str(state["StartedAt"]),
        restarts=int(shown.get("RestartCount") or 0),
        ports=_ports(host.get("PortBindings") or {}),
        address=next((address for address in addresses if address), ""),
    )


def _ports(bindings: Mapping[str, Any]) -> dict[int, int]:
    return {int(port.partition("/")[0]): int(found[0]["HostPort"]) for port, found in bindings.items() if found}


def _between(start: str, end: str) -> float | None:
    """Return the seconds between two times of the engine, which have more digits than Python reads."""
    try:
        first, last = (datetime.fromisoformat(f"{text[:19]}+00:00") for text in (start, end))
    except ValueError:
        return None
    return max(0.0, (last - first).total_seconds())
