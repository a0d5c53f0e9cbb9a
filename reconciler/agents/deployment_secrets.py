"""Values of secrets for what runs on agents: which requests are answered with them (docs/adr/0043).

The way of one: the item is looked up in the document that this agent should have → its version is that of the sealed
values in service → rate of the item → opened → handed out, unless the agent has lost its place meanwhile, and noted
without the values. What the item names is answered, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from pydantic import SecretStr, ValidationError

from reconciler.agents.documents import WantedDocument
from reconciler.agents.rates import CallerBuckets
from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.secrets_version import secrets_version
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import CloudLunacyError, Refused
from reconciler.store.protocols import Event, EventStore
from schemas.deployment import DeploymentSpec
from schemas.session import SECRETS_VERSION, SecretsAnswer, SecretsRequest

log = structlog.get_logger(__name__)

BURST: Final = 10
PER_SECOND: Final = 1 / 60
"""An agent keeps what it was given; it asks again when an answer was lost, or its disk."""
SOON_SECONDS: Final = 5.0
BROKEN_SECONDS: Final = 60.0
NEVER_SECONDS: Final = 3600.0
"""For what only a new document changes; with that the agent asks anew at once."""


class DeploymentSecrets:
    """A :class:`reconciler.agents.connection.SecretsGiver`. ``state`` gives what is in service, ``in_service`` says
    whether an agent is let in at this moment.
    """

    def __init__(
        self,
        state: Callable[[], State],
        open_sealed: OpenSecret,
        in_service: Callable[[str], bool],
        events: EventStore,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._open_sealed = open_sealed
        self._in_service = in_service
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._buckets = CallerBuckets(BURST, PER_SECOND)

    async def answer(self, agent: str, document: WantedDocument | None, request: SecretsRequest) -> SecretsAnswer:
        """Return the values, or why there are none. Raises nothing."""
        try:
            return await self._give(agent, document, request)
        except Refused as refused:
            log.info("secrets were refused", agent=agent, item=request.id, code=refused.code)
            return _no(request, refused.code, str(refused), refused.retry_after or NEVER_SECONDS)
        except SecretUnavailable as error:  # says which, and never what
            log.warning("secrets cannot be opened", agent=agent, item=request.id, error=str(error))
            return _no(request, "secret-unavailable", f"The control plane cannot open it: {error}.", BROKEN_SECONDS)
        except CloudLunacyError as error:
            log.warning("secrets cannot be handed out", agent=agent, item=request.id, error=str(error))
            message = "The control plane cannot open secrets just now; its log says why."
            return _no(request, "unavailable", message, BROKEN_SECONDS)
        except Exception as error:  # noqa: BLE001  its text and its frames might show a value
            log.error("handing out secrets failed by a bug", agent=agent, item=request.id, error=type(error).__name__)  # noqa: TRY400
            return _no(request, "unavailable", "The control plane failed; its log says more.", BROKEN_SECONDS)

    async def _give(self, agent: str, document: WantedDocument | None, request: SecretsRequest) -> SecretsAnswer:
        spec, version, team = _wanted(document, request)
        state = self._state()
        view = state.view(self._open_sealed)
        if version != request.version:
            text = "A newer document says something else of this deployment."
            raise Refused(text, status=409, code="older-document", retry_after=SOON_SECONDS)
        if secrets_version(spec, lambda name: view.secret(team, name)) != version:
            text = "The values have changed since; the deployment gets them with its next version."
            raise Refused(text, status=409, code="secrets-changed", retry_after=SOON_SECONDS)
        seconds = self._buckets.of(f"{agent}/{request.id}").take(self._monotonic())
        if seconds:
            text = "These values were handed out several times a moment ago."
            raise Refused(text, status=429, code="too-many-requests", retry_after=seconds)
        self._require_in_service(agent)

        def opened() -> Mapping[str, SecretStr]:
            return {use.id: SecretStr(view.open_secret(team, use.secret, use.key)) for use in spec.secret_uses()}

        values = await asyncio.to_thread(opened)
        self._require_in_service(agent)
        message = f"The values of {request.id} were sent to {agent}: {', '.join(sorted(values))}."
        await self._events.append(
            Event(self._clock(), "SecretsSent", "info", f"agent/{agent}", message[:1000], actor=f"agent:{agent}")
        )
        return SecretsAnswer(id=request.id, version=version, values=dict(values))

    def _require_in_service(self, agent: str) -> None:
        if not self._in_service(agent):
            raise Refused("This agent is not in service any more.", status=403, code="agent-revoked")


def _wanted(document: WantedDocument | None, request: SecretsRequest) -> tuple[DeploymentSpec, str, str]:
    """Return what the document says of the item that a request is for, the version of its secrets, and its team.

    Raises:
        Refused: ``not-wanted``.
    """
    items = document.items() if document is not None else ()
    item = next((one for one in items if one.id == request.id and one.kind == "Deployment"), None)
    said = {} if item is None else dict(item.spec)
    version = said.pop(SECRETS_VERSION, None)
    try:
        spec = DeploymentSpec.model_validate(said) if isinstance(version, str) else None
    except ValidationError:
        spec = None
    if item is None or spec is None or not isinstance(version, str):
        raise Refused("This agent's document names no such secrets.", status=403, code="not-wanted")
    return spec, version, item.id.split("/")[1]


def _no(request: SecretsRequest, code: str, message: str, seconds: float) -> SecretsAnswer:
    word = "".join(part.capitalize() for part in code.split("-"))
    return SecretsAnswer(id=request.id, reason=word, message=message[:1000], retry_seconds=seconds)
