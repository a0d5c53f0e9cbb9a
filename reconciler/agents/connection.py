"""What a hub is connected to: one accepted WebSocket on the one side, whoever hears what agents say on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.agents.documents import WantedDocument
from reconciler.agents.session import Answered
from schemas.session import CertificateRequest, Heartbeat, Hello, Report


class Connection(Protocol):
    """One accepted WebSocket. Once :meth:`close` or :meth:`abort` was called, :meth:`receive` returns None."""

    @property
    def try_send(self) -> Callable[[str], bool]:
        """Hand a message to the transport at once; False when it has no room or is closed."""
        ...

    async def send(self, text: str) -> None:
        """Hand a message to the transport; waits while it has no room. Raises OSError when the peer is gone."""
        ...

    async def close(self, code: int, reason: str) -> None: ...

    def abort(self) -> None:
        """Drop the connection without a closing handshake and without writing what waits."""
        ...

    async def receive(self) -> str | bytes | None:
        """Return the next message, None once the connection is over."""
        ...


class Observer(Protocol):
    """Hears what agents say. Calls are plain and must be quick; times are POSIX seconds."""

    def connected(self, name: str, hello: Hello, now: float) -> None: ...

    def disconnected(self, name: str, reason: str, now: float) -> None: ...

    def reported(self, name: str, report: Report, now: float) -> None: ...

    def heartbeat(self, name: str, heartbeat: Heartbeat, now: float) -> None: ...


class Certifier(Protocol):
    """Answers requests for certificates: :class:`reconciler.agents.service_certificates.ServiceCertificates`."""

    async def answer(self, agent: str, document: WantedDocument | None, request: CertificateRequest, /) -> Answered:
        """Return the certificate, or why there is none. ``document`` is what the agent should have. Raises nothing."""
        ...


class NoCertificates:
    """A certifier for hubs without an authority."""

    async def answer(self, _agent: str, _document: WantedDocument | None, request: CertificateRequest, /) -> Answered:
        return Answered(request.id, reason="Unavailable", message="There is no authority here.", retry_seconds=3600)
