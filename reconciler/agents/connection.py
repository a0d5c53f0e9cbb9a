"""What a hub is connected to: one accepted WebSocket on the one side, whoever hears what agents say on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.agents.documents import WantedDocument
from reconciler.agents.session import Answered, Heard
from schemas.session import (
    FEATURES,
    CertificateRequest,
    CommandOutput,
    Features,
    Heartbeat,
    Hello,
    Observation,
    Report,
    SecretsAnswer,
    SecretsRequest,
    Usage,
)


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

    def features(self, name: str, features: frozenset[str], now: float) -> None:
        """The agent knows these of the features that were offered; said once in a connection, after its hello."""
        ...

    def observation(self, name: str, observation: Observation, now: float) -> None:
        """The newest of this connection; numbers of another connection mean nothing here."""
        ...

    def usage(self, name: str, usage: Usage, now: float) -> None: ...

    def command_output(self, name: str, output: CommandOutput, now: float) -> None: ...


class Certifier(Protocol):
    """Answers requests for certificates: :class:`reconciler.agents.service_certificates.ServiceCertificates`."""

    async def answer(self, agent: str, document: WantedDocument | None, request: CertificateRequest, /) -> Answered:
        """Return the certificate, or why there is none. ``document`` is what the agent should have. Raises nothing."""
        ...


class NoCertificates:
    """A certifier for hubs without an authority."""

    async def answer(self, _agent: str, _document: WantedDocument | None, request: CertificateRequest, /) -> Answered:
        return Answered(request.id, reason="Unavailable", message="There is no authority here.", retry_seconds=3600)


class SecretsGiver(Protocol):
    """Answers requests for the values of secrets."""

    async def answer(self, agent: str, document: WantedDocument | None, request: SecretsRequest, /) -> SecretsAnswer:
        """Return the values, or why there are none. ``document`` is what the agent should have. Raises nothing."""
        ...


class NoSecrets:
    """For hubs that hold none."""

    async def answer(self, _agent: str, _document: WantedDocument | None, request: SecretsRequest, /) -> SecretsAnswer:
        return SecretsAnswer(
            id=request.id, reason="Unavailable", message="There are no secrets here.", retry_seconds=3600
        )


def tell(observer: Observer, name: str, message: Heard, now: float) -> None:
    """Let the observer hear what an agent said."""
    match message:
        case Hello():
            observer.connected(name, message, now)
        case Report():
            observer.reported(name, message, now)
        case Heartbeat():
            observer.heartbeat(name, message, now)
        case Features():
            observer.features(name, frozenset(message.features) & frozenset(FEATURES), now)
        case Observation():
            observer.observation(name, message, now)
        case Usage():
            observer.usage(name, message, now)
        case CommandOutput():
            observer.command_output(name, message, now)
