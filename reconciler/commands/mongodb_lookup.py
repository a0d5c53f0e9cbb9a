"""What the actions on databases share: where to look for one, and what its connection string says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reconciler.commands.client import Client, add_trust_options, target_of
from reconciler.commands.evaluate import judge
from reconciler.commands.plan_command import state_from
from reconciler.commands.tree import read_directory
from reconciler.desired.finding import did_you_mean
from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.state import State
from reconciler.errors import Broken, Misused, Rejected
from reconciler.mongodb.connection_string import PORT, ConnectionString
from reconciler.mongodb.places import Place
from reconciler.pki.identities import identities_of_data, identities_of_file, open_with
from reconciler.pki.sealing import Opener
from schemas.api import FleetStatus, PublishedState
from schemas.deployment import MongoDBUser
from schemas.objects import ObjectKey
from schemas.secret import Secret

CA_FILE = "ca.pem"
"""In the data directory of ``serve``."""


class Looked(NamedTuple):
    """What was found, and the port at which clients reach Traefik."""

    state: State
    port: int


NAME = "an agent, a route or a deployment of type mongodb (TEAM/NAME where several teams have one), or the host"


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add where to look."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dir", type=Path, metavar="DIR", help="look in a state repo (default: .)")
    source.add_argument("--server", metavar="URL", help="look at what this control plane has in service")
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="the same, on its machine; opens passwords, with --dir too")  # fmt: skip
    add_trust_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add where to look, and what shall stand in the connection string."""
    add_source_options(parser)
    parser.add_argument("--user", metavar="U", help="who logs in (default: the only user of the deployment)")
    parser.add_argument("--database", metavar="DB", help="database to use (default: the user's)")
    parser.add_argument("--identity", type=Path, action="append", default=[], metavar="FILE",
                        help="file with an age identity that opens the secret")  # fmt: skip
    parser.add_argument("--port", type=int, metavar="P",
                        help=f"where clients reach Traefik (default: its entry point's, else {PORT})")  # fmt: skip


def look(options: argparse.Namespace) -> Looked:
    """Return what is in service at a control plane, or would be of a directory.

    Raises:
        Misused: when the port is none.
        Broken, Transient, Refused: when it cannot be read.
    """
    port: int | None = getattr(options, "port", None)
    if port is not None and not 0 < port < 65536:
        raise Misused(f"{port} is no port.")
    if options.dir is not None or (options.server is None and options.data is None):
        return Looked(judge(read_directory(options.dir or Path())).settled.state, port or PORT)
    if options.server is not None:
        options = argparse.Namespace(**{**vars(options), "data": None})
    with Client(target_of(options, os.environ)) as client:
        return ask(client, port)


def ask(client: Client, port: int | None = None) -> Looked:
    """Ask a control plane for what is in service, and for the port where none is given.

    Raises:
        Broken, Transient, Refused: when it cannot be read.
    """
    state = state_from(client.read(PublishedState, "/state"))
    if port is None:
        ports = [one.mongodb_port for one in client.read(FleetStatus, "/status").fronts]
        port = next(filter(None, ports), PORT)
    return Looked(state, port)


def ca_file_of(data: Path | None, place: Place) -> str:
    """Return the fleet's roots on the control plane's machine, where these are what a database is verified with."""
    path = data.absolute() / CA_FILE if data is not None else None
    return str(path) if path is not None and place.is_internal and path.is_file() else ""


def openers_of(options: argparse.Namespace) -> Sequence[Opener]:
    """Return what opens secrets; none where the options name nothing.

    Raises:
        Broken: when an identity cannot be used.
    """
    openers = [opener for path in options.identity for opener in identities_of_file(path)]
    return [*openers, *(identities_of_data(options.data, os.environ) if options.data is not None else ())]


def connection_string(
    place: Place,
    looked: Looked,
    openers: Sequence[Opener],
    *,
    user: str | None = None,
    database: str | None = None,
    ca_file: str = "",
) -> ConnectionString:
    """Return the connection string of a database; without ``openers`` the password stays a gap.

    ``user`` and ``database``: others than the deployment's only user and that user's database.

    Raises:
        Rejected: when the database has no such user, or nobody here can open the secret.
        Broken: when there is no secret.
    """
    known = _user(place, user)
    if database is None:
        database = known.database if known is not None else ""
    return ConnectionString(
        host=place.host,
        port=looked.port,
        user=known.name if known is not None else user or "<user>",
        password=_password(place, known, looked.state, openers) if openers else "<password>",
        database=database,
        auth_source=known.database if known is not None else "",
        ca_file=ca_file,
    )


def _user(place: Place, name: str | None) -> MongoDBUser | None:
    """Choose the user; one that the repository does not know is taken as it is, where it knows none."""
    if name is None:
        return place.users[0] if len(place.users) == 1 else None
    found = place.user(name)
    if found is None and place.users:
        names = [one.name for one in place.users]
        hint = did_you_mean(name, names) or f"It has: {', '.join(names)}."
        raise Rejected(f'The database at {place.host} has no user "{name}".', reason="NoUser", hint=hint)
    return found


def _password(place: Place, user: MongoDBUser | None, state: State, openers: Sequence[Opener]) -> str:
    if user is None:
        what = "has several users" if place.users else "has no users that the state repo knows"
        hint = f"Name one with --user: {', '.join(one.name for one in place.users)}." if place.users else ""
        raise Rejected(f"The database at {place.host} {what}.", reason="NoUser", hint=hint)
    key = ObjectKey("Secret", place.route.team, user.password.name)
    secret = state.objects.get(key)
    armour = secret.spec.sealed.get(user.password.key) if isinstance(secret, Secret) else None
    if armour is None:
        hint = f"Seal it: cloudlunacy secret seal {key.team}/{key.name} {user.password.key}"
        raise Broken(f'there is no secret {key.team}/{key.name} with "{user.password.key}".', hint=hint)
    try:
        return open_with(openers, armour)
    except SecretUnavailable as error:
        raise Rejected(f"{key.path}, {user.password.key}: {error}.", reason="SecretUnavailable") from None
