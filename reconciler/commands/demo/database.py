"""The demo's database, the deployment ``orders`` on vps-1: a client that comes to it through Traefik."""

from __future__ import annotations

from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from reconciler.commands.client import Client, Target
from reconciler.commands.demo.folder import Folder
from reconciler.commands.demo.ports import HOST
from reconciler.commands.mongodb_lookup import ask, connection_string
from reconciler.errors import Broken
from reconciler.mongodb.check import led_to
from reconciler.mongodb.connection_string import ConnectionString
from reconciler.mongodb.places import find
from reconciler.pki.identities import identity_of_data

NAME: Final = "orders"
DATABASE: Final = "shop"


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
