"""What must hold of databases that agents run (``type: mongodb``), as far as the repository shows it.

The former version is the one in service. What the data on an agent really is, the agent compares itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from reconciler.desired.finding import Finding
from reconciler.desired.view import View
from schemas.deployment import Deployment, MongoDB
from schemas.mongodb_versions import OLDEST, refusal, series_of
from schemas.objects import AnyObject, ObjectKey

AGENTS_USER: Final = "cloudlunacy-agent"
"""User of the database ``admin`` that agents keep for themselves."""
_NEVER_RAN: Final = "Where it never ran, remove the file with one commit and add it again with the next."
"""What is in service does not tell: only agents know whether there is data, and they go by that."""


def database_rules(key: ObjectKey, found: AnyObject, view: View) -> Iterator[Finding]:
    """Yield what is wrong with a deployment of type mongodb."""
    if not isinstance(found, Deployment) or found.spec.mongodb is None:
        return
    if found.spec.rollout.strategy == "blue-green":
        text = f'database "{key.name}" cannot be rolled out blue-green: two mongod cannot have one data directory.'
        hint = "Write strategy: recreate, or leave it out."
        yield Finding(key.path, "mongodb-one-at-a-time", text, hint, ("spec", "rollout", "strategy"))
    if len(found.spec.ports) > 1:
        text = f'database "{key.name}" lists {len(found.spec.ports)} ports, and mongod listens at one.'
        yield Finding(key.path, "mongodb-one-port", text, "Keep one port.", ("spec", "ports"))
    if series_of(found.spec.mongodb.version) < OLDEST:
        asked = found.spec.mongodb.version
        text = f'database "{key.name}" asks for MongoDB {asked}, and {OLDEST} is the oldest that runs.'
        hint = f'Write version: "{OLDEST}" or a later one.'
        yield Finding(key.path, "mongodb-too-old", text, hint, ("spec", "mongodb", "version"))
    yield from _users(key, found.spec.mongodb)
    former = None if view.before is None else view.before.deployment(key.team, key.name)
    if former is not None and former.spec.mongodb is not None:
        yield from _change(key, former.spec.mongodb, found.spec.mongodb)


def _users(key: ObjectKey, mongodb: MongoDB) -> Iterator[Finding]:
    seen = {("admin", AGENTS_USER)}
    for index, user in enumerate(mongodb.users):
        if (user.database, user.name) in seen:
            why = "is the agent's own" if user.name == AGENTS_USER else "is listed twice"
            text = f'user "{user.name}" of database "{user.database}" {why}.'
            where = ("spec", "mongodb", "users", index, "name")
            yield Finding(key.path, "mongodb-user-reserved", text, "Use another name.", where)
        seen.add((user.database, user.name))


def _change(key: ObjectKey, former: MongoDB, wanted: MongoDB) -> Iterator[Finding]:
    refused = refusal(former.version, wanted.version)
    if refused is not None:
        where = ("spec", "mongodb", "version")
        yield Finding(key.path, "mongodb-upgrade-refused", refused.text, f"{refused.hint} {_NEVER_RAN}", where)
    if former.runtime is not None and wanted.runtime not in (None, former.runtime):
        text = f'database "{key.name}" runs as {former.runtime}, and its data does not go along to {wanted.runtime}.'
        hint = f"Make a backup, add another deployment with this runtime, and restore it there. {_NEVER_RAN}"
        yield Finding(key.path, "mongodb-moves", text, hint, ("spec", "mongodb", "runtime"))
