"""Many real agents in one process: ``python -m tests.support.agent_swarm FOLDER`` runs those whose data lies there.

Whatever an agent warns of goes to standard error: a connection that ended, a certificate that did not come. When all is
well, nothing is written.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from agent.certificate import CertificateKeeper
from agent.certificate_files import CertificateFiles
from agent.client import Parts, run
from agent.credentials import AgentFile, Credentials
from agent.keys import AgentKey
from agent.services import RecordingService, Service
from agent.trust import TrustService
from schemas.jwk import JwkSet

NAMES = "vps-{:03}"


def make_keys(folder: Path, count: int) -> dict[str, str]:
    """Make the data directories of so many agents; return the thumbprint of each, for its file in the state repo."""
    names = [NAMES.format(number) for number in range(1, count + 1)]
    return {name: AgentKey.load_or_create(folder / name).thumbprint for name in names}


def enrol(folder: Path, names: Iterable[str], *, server: str, ca: str, jwks: JwkSet) -> None:
    """Write what an enrolment leaves on each agent."""
    for name in names:
        AgentFile(name=name, server=server, issuer=server, ca=ca, jwks=jwks).save(folder / name)


async def one_agent(data: Path, stop: asyncio.Event) -> None:
    credentials = Credentials.load(data)
    files = CertificateFiles(data, credentials.name)
    keeper = CertificateKeeper(files, credentials)
    trust = TrustService(credentials, files, [keeper.leave])
    services: list[Service] = [trust, RecordingService(frozenset({"Certificate", "Deployment"}))]
    await run(data, services, credentials, stop, parts=Parts(others={"agent-certificate": keeper.run}))


async def main(folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as group:
        for data in sorted(folder.iterdir()):
            group.create_task(one_agent(data, stop), name=data.name)
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(Path(sys.argv[1])))
