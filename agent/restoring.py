"""``cloudlunacy agent restore-mongodb``: write an archive into a database of this machine, whichever it was made of.

It runs beside the agent and with what that has on its disk: where mongod answered last, and the password of the agent's
user. The database has to run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from agent.deployments.mongodb import Databases
from agent.deployments.mongodb_archive import BadArchive, read_manifest
from agent.deployments.mongodb_backups import BackupError, Backups
from agent.deployments.mongodb_files import DatabaseFiles, Record
from agent.deployments.mongodb_known import Database, start_of
from agent.deployments.observed import Instance
from agent.deployments.workload import Key, Workload
from agent.keys import AgentKey, Unusable
from agent.sealing import Sealer
from schemas.deployment import DeploymentSpec


def add_restore(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "restore-mongodb",
        help="write a backup of any database into one of this machine",
        description="Read an archive, compare its checksums, and write it into a database that runs on this machine. "
        "Users and passwords remain those of that database.",
    )
    parser.add_argument("database", metavar="TEAM/NAME", help="its deployment")
    parser.add_argument("archive", type=Path, metavar="FILE", help="one of the backups of this or another agent")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the directory given to enrol")
    parser.add_argument("--replace", action="store_true", help="data that is there may go, after a backup of it")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run_restore)


def run_restore(options: argparse.Namespace) -> int:
    try:
        key = _key(options.database)
        backups = Backups(_attached(options.data, key))
        manifest = read_manifest(options.archive)
        if not options.yes and not _confirmed(f"{manifest.team}/{manifest.deployment}", manifest.documents, key):
            return _fail("nothing was done.")
        asyncio.run(backups.restore(key, options.archive, replace=options.replace, told=_tell))
    except (Unusable, BadArchive) as error:
        return _fail(str(error))
    except BackupError as error:
        return _fail(error.message)
    except OSError as error:
        return _fail(f"{error.filename or options.archive} cannot be read: {error.strerror}")
    sys.stdout.write(f"Restored into {key}.\n")
    return 0


def _tell(line: str) -> None:
    sys.stdout.write(line)


def _key(text: str) -> Key:
    team, slash, name = text.partition("/")
    if not slash or not team or not name or "/" in name or ".." in (team, name):
        raise Unusable(f'"{text}" names no deployment; write TEAM/NAME.')
    return Key(team, name)


def _attached(data: Path, key: Key) -> Databases:
    """Return what the agent knows of a database, as if it had just looked. Raises Unusable."""
    files = DatabaseFiles(data, Sealer(AgentKey.load(data).private))
    databases = Databases(files, [], held=lambda _team, _name: None)
    record = databases.records.get(key)
    if record is None or not record.address:
        known = ", ".join(map(str, databases.records)) or "none"
        raise Unusable(f"No database {key} has run on this agent yet; there are: {known}.")
    databases.databases[key] = _as_seen(key, record)
    return databases


def _as_seen(key: Key, record: Record) -> Database:
    ports = [{"container": record.port, "host": record.port}]
    spec = {"type": "mongodb", "agents": ["here"], "ports": ports, "mongodb": {"version": record.version}}
    workload = Workload(key, DeploymentSpec.model_validate(spec))
    instance = Instance("here", key, "", "a", "running", address=record.address)
    return Database(workload, made=workload, instance=instance, greeted=start_of(instance))


def _confirmed(source: str, documents: int, key: Key) -> bool:
    if not sys.stdin.isatty():
        sys.stderr.write(f"cloudlunacy: nobody is here to be asked; say --yes to write into {key}.\n")
        return False
    sys.stdout.write(f"This writes {documents} documents of {source} into {key}. Type {key} to go on: ")
    sys.stdout.flush()
    return sys.stdin.readline().strip() == str(key)


def _fail(message: str) -> int:
    sys.stderr.write(f"cloudlunacy: {message}\n")
    return 1
