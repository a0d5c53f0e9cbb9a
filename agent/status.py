"""``cloudlunacy agent status``: how it stands with this machine, from its disk alone. Nothing is changed or asked."""

from __future__ import annotations

from pathlib import Path

from agent import left_behind
from agent.certificate import WAY_BACK, utc
from agent.certificate_files import CertificateFiles, Held
from agent.credentials import AgentFile
from agent.documents import DocumentStore
from agent.renewal import EARLIEST, LATEST
from agent.service_files import ServiceFiles
from agent.service_state import describe


def lines(data: Path, now: float) -> list[str]:
    """Return what to print; ``now`` is in POSIX seconds, by this machine's clock.

    Raises:
        Unusable: when this machine is not enrolled, or its files are damaged.
        OSError: when a file cannot be read.
    """
    file = AgentFile.load(data)
    generation = DocumentStore(data).applied().generation
    said = {
        "agent": file.name,
        "control plane": file.server,
        "certificate": _certificate(CertificateFiles(data, file.name).load(), now),
        "applied": f"generation {generation}" if generation else "nothing yet",
    }
    if why := left_behind.read(data):
        said["left behind"] = why
    services = {str(name): describe(held) for name, held in ServiceFiles(data).all()}
    return [f"{word:<15}{text}" for word, text in {**said, **services}.items()]


def _certificate(held: Held | None, now: float) -> str:
    if held is None:
        return "none yet; cloudlunacy agent run asks for it"
    begins, ends = held.life
    if now >= ends:
        return f"ended at {utc(ends)}. {WAY_BACK}"
    early, late = (utc(begins + share * (ends - begins)) for share in (EARLIEST, LATEST))
    return f"until {utc(ends)}; renewed between {early} and {late}"
