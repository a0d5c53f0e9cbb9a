"""What pages show of deployments and databases beyond the API's own models. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from reconciler.desired.state import State
from reconciler.mongodb.connection_string import PORT, ConnectionString
from reconciler.mongodb.places import Place
from reconciler.web.deployment_views import Look, agents_of
from schemas.deployments_api import DeploymentOnAgent, DeploymentView
from schemas.objects import ObjectKey
from schemas.observation import DeploymentObservation
from schemas.session import UNSUPPORTED

STATES: Final = ("Failed", "Changing", "Unknown", "Unsupported", "Healthy", "Nowhere")
"""The worst first: one agent that is bad makes the whole so."""
_ILL: Final = frozenset({"unhealthy", "stopped"})


class Wanted(NamedTuple):
    """Which deployments somebody wants to see; what is empty asks for nothing."""

    q: str = ""
    team: str = ""
    agent: str = ""
    state: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """Read what stands behind the question mark."""
        return cls(*(query.get(name, "").strip()[:200] for name in cls._fields))

    def query(self, **more: str) -> str:
        """Return the same for a link."""
        return urlencode({name: value for name, value in {**self._asdict(), **more}.items() if value})

    @property
    def is_any(self) -> bool:
        """Say whether every deployment is meant."""
        return not any(self)


def is_meant(key: ObjectKey, look: Look, wanted: Wanted) -> bool:
    """Say whether a deployment is meant; what costs most is asked last."""
    text = wanted.q.lower()
    if wanted.team and wanted.team != key.team:
        return False
    if text and text not in f"{key.team}/{key.name}" and text not in image_of(look.state, key).lower():
        return False
    if wanted.agent and wanted.agent not in agents_of(look.state, key):
        return False
    return not wanted.state or wanted.state == state_in(key, look)


def image_of(state: State, key: ObjectKey) -> str:
    """Return what it runs: the image, the program, or the release of MongoDB."""
    spec = getattr(state.served[key].object, "spec", None)
    if spec is None:
        return ""
    if spec.mongodb is not None:
        return f"MongoDB {spec.mongodb.version}"
    return spec.image or (spec.command[0] if spec.command else "")


def word(result: Mapping[str, Any] | None, observed: DeploymentObservation | None, *, connected: bool) -> str:
    """Say in one of :data:`STATES` how a deployment stands on an agent."""
    state = result.get("state") if result is not None else None
    if not connected:
        return "Unknown"
    if state == "Failed" or (observed is not None and observed.health in _ILL):
        return "Failed"
    if result is not None and result.get("reason") == UNSUPPORTED:
        return "Unsupported"
    if state != "Applied" or (observed is not None and (observed.step or observed.health == "starting")):
        return "Changing"
    return "Unknown" if observed is not None and observed.health == "unknown" else "Healthy"


def word_of(one: DeploymentOnAgent) -> str:
    """Say the same of what the API shows."""
    result = None if one.result is None else {"state": one.result.state, "reason": one.result.reason}
    return word(result, one.observed, connected=one.connected)


def state_in(key: ObjectKey, look: Look, on: str = "") -> str:
    """Say how a deployment stands in all, or ``on`` an agent, without making models: this is asked of thousands."""
    name, found = str(key), []
    for agent in (on,) if on else agents_of(look.state, key):
        seen = look.observations.get(agent)
        result = None if seen is None else next((one for one in seen.items if one["id"] == name), None)
        found.append(word(result, look.seen(agent, key), connected=agent in look.connected))
    return worst(found)


def worst(words: Iterable[str]) -> str:
    """Return the word for all of them."""
    found = set(words)
    return next((one for one in STATES if one in found), "Nowhere")


class Row(NamedTuple):
    """A line of the list. ``ok`` of ``wanted`` agents have it as it shall be."""

    view: DeploymentView
    what: str
    state: str
    ok: int
    wanted: int
    message: str
    """Of the first agent where it is bad."""


def row(view: DeploymentView, what: str) -> Row:
    """Return the line of a deployment."""
    words = [word_of(one) for one in view.agents]
    counts = Counter(words)
    bad = next((one for one, said in zip(view.agents, words, strict=True) if said == "Failed"), None)
    message = "" if bad is None else f"{bad.agent}: {why(bad)}"
    return Row(view, what, worst(words), counts["Healthy"] + counts["Unsupported"], len(words), message)


def why(one: DeploymentOnAgent) -> str:
    """Say what an agent says about it."""
    said = one.result
    if said is not None and (said.reason or said.message):
        return ": ".join(filter(None, (said.reason, said.message)))
    if one.observed is not None and one.observed.health in _ILL:
        return one.observed.health
    return ""


# --- databases ----------------------------------------------------------------------------------------------------


class Address(NamedTuple):
    """How clients reach a database: without its password."""

    host: str
    agent: str
    user: str
    uri: str
    command: str
    """That prints it, with the password."""
    is_internal: bool
    """Clients need the fleet's roots."""


def addresses(places: Iterable[Place], key: ObjectKey, port: int | None) -> tuple[Address, ...]:
    """Return a connection string for each name and user that leads to a deployment."""
    found = []
    for place in places:
        if key not in place.deployments:
            continue
        several = len(place.users) > 1
        for user in place.users or (None,):
            uri = ConnectionString(
                host=place.host,
                port=port or PORT,
                user="<user>" if user is None else user.name,
                password="<password>",  # noqa: S106 - a gap for a person to fill
                database="" if user is None else user.database,
                auth_source="" if user is None else user.database,
            )
            more = f" --user {user.name}" if user is not None and several else ""
            command = f"cloudlunacy mongodb uri {place.host}{more} --show-password --data DIR"
            name = "" if user is None else user.name
            found.append(Address(place.host, place.agent, name, str(uri), command, place.is_internal))
    return tuple(found)


class Backup(NamedTuple):
    """A backup, as its agent told it. ``at`` is None where the line cannot be read."""

    id: str
    at: datetime | None
    text: str


_BACKUP: Final = re.compile(
    r"(?P<id>[0-9A-Za-z][0-9A-Za-z._-]{0,127})\s+(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC\s+(?P<text>.*)"
)


def backups(text: str) -> tuple[Backup, ...]:
    """Read what ``backups`` prints, newest first; lines that are of another form come last, as they are."""
    found, others = [], []
    for line in filter(None, map(str.strip, text.split("\n"))):
        match = _BACKUP.fullmatch(line)
        if match is None:
            others.append(Backup("", None, line))
            continue
        try:
            at = datetime.strptime(match["at"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        except ValueError:
            others.append(Backup("", None, line))
            continue
        found.append(Backup(match["id"], at, match["text"]))
    return (*reversed(found), *others)
