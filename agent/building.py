"""Puts an agent together: which services, drivers and tasks there are, and who knows whom. Nothing begins here."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agent.certificate import CertificateKeeper
from agent.certificate_files import CertificateFiles
from agent.client import Parts
from agent.commands.allowance import Allowance
from agent.commands.databases import DatabaseCommands
from agent.commands.deployments import DeploymentCommands
from agent.commands.runner import Commands
from agent.credentials import Credentials
from agent.deployments.driver import Driver, DriverError
from agent.deployments.firewall import IpTables
from agent.deployments.fronts import Fronts
from agent.deployments.lane import LaneSettings
from agent.deployments.local_engine import LocalEngine, is_there
from agent.deployments.memory import FOLDER
from agent.deployments.mongodb import Databases
from agent.deployments.mongodb_backups import Backups
from agent.deployments.mongodb_driver import DatabaseDriver
from agent.deployments.mongodb_files import DatabaseFiles
from agent.deployments.mongodb_workload import Runtime
from agent.deployments.process_driver import ProcessDriver, ProcessSettings
from agent.deployments.secrets import Secrets
from agent.deployments.service import DeploymentService
from agent.deployments.usage import UsageGatherer
from agent.keys import AgentKey
from agent.machine import Machine
from agent.observing import Observing
from agent.presence import Presence
from agent.sealing import Sealer
from agent.service_certificates import ServiceCertificates
from agent.services import Service
from agent.settings import AgentSettings
from agent.trust import TrustService
from schemas.session import Document, released_by

log = logging.getLogger(__name__)


class Agent(NamedTuple):
    services: Sequence[Service]
    """In the order in which they apply a document: whom to trust comes first."""
    parts: Parts


def build(data: Path, credentials: Credentials, settings: AgentSettings) -> Agent:
    """Make the agent of an enrolled machine.

    Raises:
        Unusable: where a file of this machine is damaged.
        OSError: where the directory cannot be read.
    """
    certificates = ServiceCertificates(data, credentials.now)
    files = CertificateFiles(data, credentials.name)
    keeper = CertificateKeeper(files, credentials)
    trust = TrustService(credentials, files, [keeper.leave, certificates.leave])
    machine = Machine(data)
    presence = Presence(data, importlib.metadata.version("cloudlunacy"))
    engine = _engine(credentials.name, settings)
    observing = Observing(lambda: usage.usage())  # noqa: PLW0108  which is made of the deployments
    sealer = Sealer(AgentKey.load(data).private)
    secrets = Secrets(data, sealer)
    secrets.load()
    databases = _databases(DatabaseFiles(data, sealer), settings, certificates, secrets, engine)
    backups = Backups(databases, now=credentials.now)
    deployments = _deployments(data, credentials.name, settings, databases, engine, values=secrets, fronts=observing)
    usage = UsageGatherer(deployments.running)
    own = Allowance(trust)
    handlers = (DeploymentCommands(deployments.commanding, own).handlers(), DatabaseCommands(backups).handlers())
    commands = Commands({name: handler for some in handlers for name, handler in some.items()})

    def hold(document: Document) -> None:
        if engine is not None:
            engine.reached_at(address_of(document))
        databases.capabilities = capabilities_of(document)
        deployments.remembered.released = released_by(document)

    def metrics() -> Mapping[str, float]:
        return {**machine.metrics(), **certificates.metrics()}

    return Agent(
        (own, certificates, deployments),
        Parts(
            asker=certificates,
            extensions=(observing, secrets, commands),
            others={
                "agent-certificate": keeper.run,
                "agent-services": certificates.run,
                "agent-deployments": deployments.run,
                "agent-backups": backups.run,
                "agent-machine": machine.run,
                "agent-presence": presence.run,
                "agent-observing": observing.run,
                "agent-usage": usage.run,
                "agent-secrets": secrets.run,
            },
            hold=hold,
            metrics=metrics,
            presence=presence,
            prepare=partial(keep_away, engine, data),
        ),
    )


async def keep_away(engine: LocalEngine | None, data: Path) -> None:
    """Have the rules stand before the engine is told to start, after a boot, what ran before (the unit's order)."""
    if engine is None or not (data / FOLDER).is_dir():
        return
    try:
        await engine.keep_away()
    except DriverError as error:  # each start of a container meets it again, and says so
        log.warning("%s", error.message)


def _engine(agent: str, settings: AgentSettings) -> LocalEngine | None:
    if settings.socket is None:
        return None
    publish, shared = settings.publish, settings.shared
    return LocalEngine(settings.socket, agent, firewall=IpTables(), publish=publish, shared=shared)


def _databases(
    files: DatabaseFiles,
    settings: AgentSettings,
    certificates: ServiceCertificates,
    secrets: Secrets,
    engine: LocalEngine | None,
) -> Databases:
    contained: tuple[Runtime, ...] = () if engine is None else ("container",)
    runtimes: tuple[Runtime, ...] = (*contained, "process") if settings.processes.run else contained
    mongod = settings.processes.mongod_of

    def able(runtime: Runtime, version: str) -> bool:
        if runtime == "process":
            return shutil.which(mongod(version)) is not None
        return settings.socket is not None and is_there(settings.socket)

    return Databases(files, runtimes, held=certificates.held, secrets=secrets.given, mongod=mongod, able=able)


def _deployments(
    data: Path,
    agent: str,
    settings: AgentSettings,
    databases: Databases,
    engine: LocalEngine | None,
    *,
    values: Secrets,
    fronts: Fronts,
) -> DeploymentService:
    drivers: list[Driver] = [] if engine is None else [engine]
    processes = settings.processes
    if processes.run:
        readable = (*processes.readable, *processes.programs)
        confinement = ProcessSettings(readable, processes.hidden, processes.unconfined, processes.users)
        drivers.append(ProcessDriver(data, agent, confinement))
    return DeploymentService(
        data,
        [DatabaseDriver(driver, databases) for driver in drivers],
        databases=databases,
        values=values,
        fronts=fronts,
        settings=LaneSettings(ports=settings.ports.range),
    )


def address_of(document: Document) -> str:
    """Return where fronts reach this agent, as far as its document says so."""
    own = next((item.spec for item in document.items if item.kind == "Agent"), {})
    address = own.get("address")
    return address if isinstance(address, str) else ""


def capabilities_of(document: Document) -> frozenset[str]:
    """Return what the agent is for, as its file says."""
    own = next((item.spec for item in document.items if item.kind == "Agent"), {})
    found = own.get("capabilities")
    return frozenset(map(str, found)) if isinstance(found, list) else frozenset()
