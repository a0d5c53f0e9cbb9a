"""``cloudlunacy mongodb``: print the connection string of a database, and find out what is wrong with one."""

from __future__ import annotations

import argparse
import sys

from reconciler.commands import mongodb_check
from reconciler.commands.mongodb_lookup import (
    NAME,
    add_options,
    add_source_options,
    ca_file_of,
    connection_string,
    look,
    openers_of,
)
from reconciler.commands.output import say, say_json, tell
from reconciler.errors import Broken, Misused
from reconciler.mongodb.connection_string import ConnectionString
from reconciler.mongodb.places import Place, find
from reconciler.traefik.severing import sever
from reconciler.traefik.sock_diag import Unable


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "mongodb",
        help="print and check connection strings",
        description="Print the connection string of a database behind Traefik, or find out what is wrong with one.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    uri = actions.add_parser(
        "uri",
        help="print the connection string of a database",
        description="Print the connection string of a database, one a line where the name stands for several. The "
        "password is a gap, <password>, unless it is asked for and can be opened.",
    )
    uri.add_argument("name", metavar="NAME", help=NAME)
    add_options(uri)
    uri.add_argument("--show-password", action="store_true",
                     help="open the password's secret; needs --data or --identity")  # fmt: skip
    uri.add_argument("--tls-ca-file", default="", metavar="PATH",
                     help="add tlsCAFile: whom the client trusts, a path on its machine")  # fmt: skip
    uri.add_argument("--format", choices=("text", "json"), default="text")
    uri.set_defaults(run=run_uri)
    mongodb_check.add_parser(actions)
    disconnect = actions.add_parser(
        "disconnect",
        help="end the live connections to a database",
        description="End every connection from this machine, which has to be the front's, to a database. Clients may "
        "come again: to keep them away, remove the route or change the password first. Needs CAP_NET_ADMIN (sudo).",
    )
    disconnect.add_argument("name", metavar="NAME", help=NAME)
    add_source_options(disconnect)
    disconnect.set_defaults(run=run_disconnect)


def run_uri(options: argparse.Namespace) -> int:
    """Print a connection string for each database that is meant."""
    openers = openers_of(options) if options.show_password else ()
    if options.show_password and not openers:
        raise Misused("--show-password needs what opens the secret: --data DIR or --identity FILE.")
    looked = look(options)
    found = []
    for place in find(options.name, looked.state):
        ca_file = options.tls_ca_file or ca_file_of(options.data, place)
        more = {"user": options.user, "database": options.database, "ca_file": ca_file}
        found.append((place, connection_string(place, looked, openers, **more)))
    if options.format == "json":
        say_json([_as_json(place, one) for place, one in found])
    else:
        for _, one in found:
            say(str(one))
    if openers and sys.stdout.isatty():
        tell("This is a secret, and your terminal keeps what it shows. Clear it, or use a pipe.")
    if any(one.password.startswith("<") for _, one in found):
        tell("Put the password in place of <password>, its reserved characters percent-encoded; --show-password does.")
    if any(one.ca_file for _, one in found) and not options.tls_ca_file:
        tell("tlsCAFile is on this machine; for another one give the path there with --tls-ca-file.")
    elif any(place.is_internal and not one.ca_file for place, one in found):
        tell("The certificate is of the fleet's own authority, so clients need its roots: --tls-ca-file PATH. The "
             "control plane has them at /.well-known/ca.pem and as ca.pem in its data directory.")  # fmt: skip
    return 0


def run_disconnect(options: argparse.Namespace) -> int:
    """End connections, and say how many there were."""
    backends = sorted({one for place in find(options.name, look(options).state) for one in place.backends})
    try:
        count = sever(backends)
    except Unable as error:
        hint = "Run it with sudo on the machine of the front, or restart Traefik."
        raise Broken(f"connections cannot be ended: {error}.", hint=hint) from None
    say(f"{count} connections to {', '.join(backends)} were ended.")
    return 0


def _as_json(place: Place, one: ConnectionString) -> dict[str, object]:
    return {
        "uri": str(one),
        "host": one.host,
        "port": one.port,
        "database": one.database,
        "user": one.user,
        "agent": place.agent,
        "route": f"{place.route.team}/{place.route.name}",
        "deployments": [f"{key.team}/{key.name}" for key in place.deployments],
        "secrets": [f"{place.route.team}/{user.password.name}" for user in place.users if user.name == one.user],
    }
