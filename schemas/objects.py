"""Every kind of object, where its file lies, and the key by which it is known.

The path decides kind, team and name; the document must agree. So a path is a key and a key is a path, and neither
needs the file's content.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from pydantic import TypeAdapter

from schemas.agent import Agent
from schemas.certificate import Certificate
from schemas.deployment import Deployment
from schemas.fleet import Fleet
from schemas.names import NAME_PATTERN
from schemas.route import Route
from schemas.secret import Secret

Kind = Literal["Fleet", "Agent", "Secret", "Certificate", "Deployment", "Route"]
AnyObject = Fleet | Agent | Secret | Certificate | Deployment | Route

KINDS: Final[dict[Kind, type[AnyObject]]] = {
    "Fleet": Fleet,
    "Agent": Agent,
    "Secret": Secret,
    "Certificate": Certificate,
    "Deployment": Deployment,
    "Route": Route,
}
FLEET_PATH: Final = "fleet.yaml"
FOLDERS: Final[dict[str, Kind]] = {
    "agents": "Agent",
    "certificates": "Certificate",
    "secrets": "Secret",
    "deployments": "Deployment",
    "routes": "Route",
}
TEAM_KINDS: Final[frozenset[Kind]] = frozenset({"Secret", "Deployment", "Route"})
_FOLDER_OF: Final = {kind: folder for folder, kind in FOLDERS.items()}
_NAME: Final = NAME_PATTERN.strip("^$")
# These open a device instead of a file on some systems, so no checkout there could hold them.
DEVICE_NAMES: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))]
)
_PATH: Final = re.compile(
    rf"(?:(?P<folder>agents|certificates)|(?P<team_folder>secrets|deployments|routes)/(?P<team>{_NAME}))"
    rf"/(?P<name>{_NAME})\.yaml"
)


class ObjectKey(NamedTuple):
    """Kind, team ("" where the kind has none) and name. Sorts by kind, team, name."""

    kind: Kind
    team: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)

    @property
    def path(self) -> str:
        """The file that holds the object."""
        if self.kind == "Fleet":
            return FLEET_PATH
        middle = f"{self.team}/" if self.kind in TEAM_KINDS else ""
        return f"{_FOLDER_OF[self.kind]}/{middle}{self.name}.yaml"


FLEET_KEY: Final = ObjectKey("Fleet", "", "")


def key_of_path(path: str) -> ObjectKey | None:
    """Return the key of the object that belongs at ``path``, or None where no object may lie.

    The fleet's key has an empty name: there is one fleet, whatever it is called.
    """
    if path == FLEET_PATH:
        return FLEET_KEY
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    folder, team_folder, team, name = match.groups("")
    if name in DEVICE_NAMES or team in DEVICE_NAMES:
        return None
    return ObjectKey(FOLDERS[folder or team_folder], team, name)


ADAPTERS: Final[dict[Kind, TypeAdapter[AnyObject]]] = {kind: TypeAdapter(model) for kind, model in KINDS.items()}
