"""The demo's database: mongod on vps-1 behind TLS and a password, and a client that comes through Traefik.

It has the certificate that the agent was issued for the deployment ``orders`` (docs/services.md), and the user that
this deployment names, made through the localhost exception: the one thing that mongod lets anybody do who comes first.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from reconciler.commands.client import Client, Target
from reconciler.commands.demo.folder import Folder
from reconciler.commands.demo.parts import AGENTS, MONGODB_PORT, Part, listens
from reconciler.commands.demo.ports import HOST, Ports
from reconciler.commands.mongodb_lookup import ask, connection_string
from reconciler.errors import Broken
from reconciler.mongodb.check import led_to
from reconciler.mongodb.connection_string import ConnectionString
from reconciler.mongodb.places import find
from reconciler.pki.identities import identity_of_data

AGENT: Final = AGENTS[0]
NAME: Final = "orders"
USER: Final = "shop"
DATABASE: Final = "shop"
_MECHANISM: Final = "SCRAM-SHA-256"
_PATIENCE: Final = 5000
"""Milliseconds."""


def certificate(folder: Folder) -> Path:
    """Return the file with key and chain that the agent keeps for the database."""
    return folder.agent(AGENT) / "services" / "shop" / NAME / "tls.pem"


def mongod(folder: Folder, ports: Ports, program: Path) -> Part:
    """Return the part. It can start once the agent has the certificate."""
    port, pem = ports.behind[MONGODB_PORT], certificate(folder)
    command = [
        *(str(program), "--dbpath", str(folder.mongodb), "--port", str(port), "--bind_ip", HOST),
        *("--nounixsocket", "--quiet", "--wiredTigerCacheSizeGB", "0.25"),
        *("--auth", "--setParameter", f"authenticationMechanisms={_MECHANISM}"),
        *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(pem), "--tlsCAFile", str(_roots(folder))),
        "--tlsAllowConnectionsWithoutCertificates",
    ]
    what = f"mongod on port {port}, with TLS by the agent's certificate"
    return Part("mongodb", command, lambda: listens(port), what, seconds=60.0)


def create_user(folder: Folder, ports: Ports, password: str) -> None:
    """Make the user of the deployment, unless a kept demo has it.

    Raises:
        Broken: when the database refuses.
    """
    root = secrets.token_urlsafe(24)  # needed only here
    try:
        with _direct(folder, ports) as client:
            if _knows(folder, ports, password):
                return
            _create(client.admin, "root", root, "root", "admin")
        with _direct(folder, ports, username="root", password=root) as client:
            _create(client[DATABASE], USER, password, "readWrite", DATABASE)
    except PyMongoError as error:
        raise Broken(f"the database's user cannot be made: {error}.") from None


def uri(folder: Folder, target: Target) -> ConnectionString:
    """Return what ``cloudlunacy mongodb uri orders --show-password`` prints.

    Raises:
        Broken, Rejected, Transient: when the control plane has no such database in service.
    """
    with Client(target) as client:
        looked = ask(client)
    opener = identity_of_data(folder.data, {})
    return connection_string(find(NAME, looked.state)[0], looked, [opener], ca_file=str(folder.ca))


def write_and_read(one: ConnectionString, word: str) -> None:
    """Come as a client, by the connection string alone; its name is resolved here, because no DNS knows it.

    Raises:
        Broken: when what was written is not what is read.
    """
    try:
        with led_to(one.host, HOST), MongoClient[dict[str, Any]](str(one)) as client:
            orders = client[DATABASE].orders
            orders.insert_one({"word": word})
            found = orders.find_one({"word": word})
    except PyMongoError as error:
        raise Broken(f"the database does not answer through Traefik: {error}.") from None
    if found is None:
        raise Broken("the database does not have what was written into it.")


def _roots(folder: Folder) -> Path:
    return certificate(folder).with_name("ca.crt")


def _direct(folder: Folder, ports: Ports, **credentials: str) -> MongoClient[dict[str, Any]]:
    """Connect past Traefik; the certificate names the agent, and not this address."""
    more: dict[str, Any] = {**credentials, **({"authMechanism": _MECHANISM} if credentials else {})}
    return MongoClient(
        HOST, ports.behind[MONGODB_PORT], tls=True, tlsCAFile=str(_roots(folder)), tlsAllowInvalidHostnames=True,
        directConnection=True, serverSelectionTimeoutMS=_PATIENCE, **more,
    )  # fmt: skip


def _knows(folder: Folder, ports: Ports, password: str) -> bool:
    try:
        with _direct(folder, ports, username=USER, password=password, authSource=DATABASE) as client:
            client[DATABASE].command("ping")
    except OperationFailure:
        return False
    return True


def _create(database: Any, user: str, password: str, role: str, of: str) -> None:  # noqa: ANN401 - pymongo's Database
    roles = [{"role": role, "db": of}]
    database.command("createUser", user, pwd=password, roles=roles, mechanisms=[_MECHANISM])
