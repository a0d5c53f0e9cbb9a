"""Which requests of agents are answered with values of secrets, and that nothing else ever has one."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from reconciler.agents.deployment_secrets import BURST, DeploymentSecrets
from reconciler.agents.documents import WantedDocument
from reconciler.desired.items import AgentItems
from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.plan import make_plan
from reconciler.desired.state import State
from schemas.session import SECRETS_VERSION, Item, SecretsAnswer, SecretsRequest, digest_of, digest_of_items
from tests.support.documents import SEALED, agent, deployment, document, fleet, secret, settled, state_of, team
from tests.support.memory_store import MemoryStore

CANARY: Final = "canary-3f1c-of-a-value"
ID: Final = "Deployment/shop/web"
OTHER: Final = SEALED.replace("\n-----END", "\nAAAA\n-----END")
FILES: Final = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"]), team("bank", agents=["vps-1"])),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2"),
    "secrets/shop/db.yaml": secret("db", "password", "unused"),
    "deployments/shop/web.yaml": deployment(
        "web", "vps-1", secrets=[{"env": "PASSWORD", "secret": "db", "key": "password"}]
    ),
    "deployments/shop/plain.yaml": deployment("plain", "vps-2", port=8082),
}


def items(state: State, name: str = "vps-1") -> dict[str, Item]:
    return {item.id: item for item in AgentItems(state).of(name)}


def version(state: State) -> str:
    found = items(state)[ID].spec[SECRETS_VERSION]
    assert isinstance(found, str)
    return found


@dataclass
class Plane:
    """A control plane whose secrets all have the same value."""

    state: State = field(default_factory=lambda: state_of(FILES))
    in_service: set[str] = field(default_factory=lambda: {"vps-1", "vps-2"})
    error: Exception | None = None
    now: float = 0.0

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.opened = 0
        self.secrets = DeploymentSecrets(
            lambda: self.state,
            self._open,
            lambda name: name in self.in_service,
            self.store,
            clock=lambda: 0.0,
            monotonic=lambda: self.now,
        )

    def _open(self, _sealed: str) -> str:
        self.opened += 1
        if self.error is not None:
            raise self.error
        return CANARY

    def ask(self, name: str = "vps-1", *, document: State | None = None, **fields: Any) -> SecretsAnswer:
        wanted = tuple(items(document or self.state, name).values())
        said = WantedDocument(1, "a" * 40, digest_of_items(wanted), lambda: wanted)
        request = SecretsRequest(**{"id": ID, "version": version(self.state), **fields})
        return asyncio.run(self.secrets.answer(name, said, request))


def test_an_agent_gets_the_values_that_its_deployment_names() -> None:
    """Those and no others of the secret; the timeline tells which, and to whom."""
    plane = Plane()
    answer = plane.ask()
    assert {name: value.get_secret_value() for name, value in answer.values.items()} == {"db/password": CANARY}
    assert (answer.id, answer.version, answer.reason) == (ID, version(plane.state), "")
    (event,) = plane.store.disk.events
    assert (event.type, event.subject) == ("SecretsSent", "agent/vps-1")
    assert "db/password" in event.message


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vps-2", {}),
        ("vps-1", {"id": "Deployment/shop/plain"}),
        ("vps-1", {"id": "Deployment/shop/unknown"}),
        ("vps-1", {"id": "Agent/vps-1"}),
        ("vps-1", {"id": "Secret/shop/db"}),
    ],
)
def test_nothing_is_answered_that_the_agents_document_does_not_name(name: str, fields: dict[str, Any]) -> None:
    """Another agent's deployment, one without secrets, and whatever is no deployment."""
    plane = Plane()
    answer = plane.ask(name, **fields)
    assert (answer.reason, dict(answer.values), plane.opened) == ("NotWanted", {}, 0)


def test_an_agent_that_lost_its_place_gets_nothing() -> None:
    """Neither when it asks, nor when that happened while values were opened."""
    plane = Plane(in_service=set())
    assert (plane.ask().reason, plane.opened) == ("AgentRevoked", 0)


def test_values_are_of_exactly_the_version_that_is_asked_for() -> None:
    """An older document is told so, and one whose values have changed since gets none under the old name."""
    plane = Plane()
    assert plane.ask(version=digest_of("another")).reason == "OlderDocument"
    before = plane.state
    plane.state = settled(before, {"secrets/shop/db.yaml": resealed()}).state
    assert plane.ask(document=before, version=version(before)).reason == "SecretsChanged"
    assert plane.opened == 0


def test_an_agent_cannot_make_values_be_opened_without_end() -> None:
    """After a burst it has to wait, each deployment for itself."""
    plane = Plane()
    for _ in range(BURST):
        assert not plane.ask().reason
    refused = plane.ask()
    assert refused.reason == "TooManyRequests"
    plane.now += refused.retry_seconds
    assert not plane.ask().reason


@pytest.mark.parametrize("error", [SecretUnavailable("sealed to somebody else"), RuntimeError(CANARY)])
def test_what_cannot_be_opened_is_said_without_a_value(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, no text has anything of it."""
    plane = Plane(error=error)
    with caplog.at_level(logging.DEBUG):
        answer = plane.ask()
    assert answer.reason in ("SecretUnavailable", "Unavailable")
    assert CANARY not in caplog.text + answer.message + repr(plane.store.disk.events)


def test_a_value_is_in_the_answer_on_the_wire_and_nowhere_else(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in documents, logs, events, or what objects show of themselves."""
    plane = Plane()
    with caplog.at_level(logging.DEBUG):
        answer = plane.ask()
    assert CANARY in answer.model_dump_json(by_alias=True)
    printed = capsys.readouterr()
    shown = [repr(answer), str(answer), repr(plane.store.disk.events), repr(items(plane.state)), caplog.text]
    assert not any(CANARY in text for text in [*shown, printed.out, printed.err])


# --- the version in documents ---------------------------------------------------------------------------------------


def resealed(*keys: str) -> bytes:
    sealed = dict.fromkeys(("password", "unused"), SEALED)
    return document("Secret", "db", {"sealed": {**sealed, **dict.fromkeys(keys or ("password",), OTHER)}})


def test_only_deployments_that_name_secrets_have_a_version_of_them() -> None:
    """A deployment without is what it was for agents of before."""
    assert SECRETS_VERSION not in items(state_of(FILES), "vps-2")["Deployment/shop/plain"].spec


def test_a_changed_value_is_another_version_for_the_agents_that_have_it() -> None:
    """The plan names them, and documents that are made later say the same."""
    before = state_of(FILES)
    items(before)  # what was made once is remembered with the state
    changed = settled(before, {"secrets/shop/db.yaml": resealed()})
    after = changed.state
    assert version(after) != version(before)
    assert [(one.name, one.changed) for one in make_plan(before, changed).agents] == [("vps-1", (ID,))]
    maker = AgentItems(after).maker("vps-1")
    assert {item.id: item for item in maker()} == items(after)


def test_a_value_that_nobody_names_changes_nothing() -> None:
    """Another key of the same secret is no reason to restart anything."""
    before = state_of(FILES)
    after = settled(before, {"secrets/shop/db.yaml": resealed("unused")}).state
    assert items(after) == items(before)
