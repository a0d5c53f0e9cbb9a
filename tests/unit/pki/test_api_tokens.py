"""Tokens of people and CI: made once, good for what they say, until they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reconciler.errors import Refused
from reconciler.pki import api_tokens
from reconciler.pki.api_tokens import KEPT_SECONDS, ApiTokens
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from schemas.access_api import ApiTokenRequest, NewApiToken
from tests.support.memory_store import Disk, MemoryStore
from tests.support.tokens import ISSUER, NOW
from tests.unit.pki.doors import Agents

OPERATOR = "operator:local"


class Clocked:
    """The tokens of a control plane whose clock is ``now``."""

    def __init__(self, disk: Disk | None = None, now: float = NOW) -> None:
        self.now = now
        self.store = MemoryStore(disk)
        self.tokens = ApiTokens(self.store, clock=lambda: self.now)

    async def new(self, *scopes: str, **wanted: Any) -> NewApiToken:
        request = ApiTokenRequest.model_validate({"kind": "ci", "scopes": scopes or ("read",), **wanted})
        return await self.tokens.create(request, by=OPERATOR)

    def refusal(self, token: str) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            self.tokens.check(token, self.now)
        assert token not in str(caught.value)
        return caught.value.status, caught.value.code

    def events(self) -> list[tuple[str, str]]:
        return [(event.type, event.actor) for event in self.store.disk.events]


def run(scenario: Callable[[Clocked], Awaitable[object]], disk: Disk | None = None, now: float = NOW) -> Clocked:
    one = Clocked(disk, now)

    async def main() -> None:
        await one.tokens.load()
        await scenario(one)

    asyncio.run(main())
    return one


def test_a_token_is_shown_once_and_nowhere_stored() -> None:
    """Neither the store, nor events, nor any way of printing the answer has the secret; its JSON does."""

    async def scenario(one: Clocked) -> None:
        new = await one.new("read", name="deploy")
        secret = new.token.get_secret_value()
        assert secret.startswith(f"clt_{new.id}.")
        assert one.tokens.check(secret, one.now).name == "deploy"
        hidden = secret.partition(".")[2]
        shown = (repr(new), str(new), str(new.model_dump()), one.store.disk.text(), repr(one.tokens.views()))
        assert not [text for text in shown if hidden in text]
        assert secret in new.model_dump_json()

    run(scenario)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: "clt_" + "0" * 20 + token[24:],
        lambda token: token.removeprefix("clt_"),
        lambda token: token.upper(),
        lambda token: token.replace(".", ""),
        lambda token: token + "\n",
        lambda token: "clt_",
        lambda token: "clt_" + "é" * 64,
    ],
)
def test_what_is_not_quite_a_token_is_refused_alike(change: Callable[[str], str]) -> None:
    """An unknown id, a wrong secret and another form are one refusal."""

    async def scenario(one: Clocked) -> None:
        assert one.refusal(change((await one.new()).token.get_secret_value())) == (401, "bad-token")

    run(scenario)


def test_a_token_ends_by_itself_and_the_timeline_says_so_once() -> None:
    """From the second of its end on it is refused; the end is told one time."""

    async def scenario(one: Clocked) -> None:
        token = (await one.new(expires="2h")).token.get_secret_value()
        one.now += 7199.9
        assert one.tokens.check(token, one.now)
        one.now += 0.1
        assert one.refusal(token) == (401, "expired")
        for _ in range(3):
            await one.tokens.look()
        assert [kind for kind, _ in one.events()] == ["TokenCreated", "TokenFirstUsed", "TokenExpired"]

    run(scenario)


def test_revocation_counts_at_once_and_after_a_restart() -> None:
    """By name or by id, once or twice; a process that comes later knows it too."""
    disk, kept = Disk(), []

    async def scenario(one: Clocked) -> None:
        new = await one.new(name="deploy")
        kept.append(new.token.get_secret_value())
        for name in ("deploy", new.id):
            assert (await one.tokens.revoke(name, by=OPERATOR)).state == "revoked"
        assert one.refusal(kept[0]) == (401, "token-revoked")
        assert one.events() == [("TokenCreated", OPERATOR), ("TokenRevoked", OPERATOR)]

    async def later(one: Clocked) -> None:
        assert one.refusal(kept[0]) == (401, "token-revoked")
        assert (await one.new(name="deploy")).state == "good"
        assert (await one.tokens.revoke("deploy", by=OPERATOR)).state == "revoked"

    run(scenario, disk)
    run(later, disk)


def test_names_are_taken_while_they_are_good() -> None:
    """Two good tokens of one name would make revoking by name a guess."""

    async def scenario(one: Clocked) -> None:
        await one.new(name="deploy", expires="1h")
        with pytest.raises(Refused) as caught:
            await one.new(name="deploy")
        assert (caught.value.status, caught.value.code) == (409, "name-taken")
        one.now += 3600
        assert (await one.new(name="deploy")).name == "deploy"
        with pytest.raises(Refused) as caught:
            await one.tokens.revoke("other", by=OPERATOR)
        assert (caught.value.status, caught.value.code) == (404, "unknown-token")

    run(scenario)


def test_uses_are_noted_by_the_minute() -> None:
    """The first use is told; the last is written once a minute, however often it is used, and shown to the minute."""

    async def scenario(one: Clocked) -> None:
        new = await one.new()
        assert one.tokens.views()[0].last_used_at is None
        for second in range(90):
            one.tokens.check(new.token.get_secret_value(), one.now + second)
            await one.tokens.look()
        assert one.store.calls.count("save_api_token") == 3  # made, first use, a minute later
        (view,) = one.tokens.views()
        assert view.last_used_at is not None
        assert view.last_used_at.timestamp() == (one.now + 89) // 60 * 60
        assert one.events()[-1] == ("TokenFirstUsed", f"ci:{new.name}")

    run(scenario)


def test_what_ended_long_ago_is_forgotten() -> None:
    """A token can be seen for 90 days after its end."""

    async def scenario(one: Clocked) -> None:
        await one.new(expires="1h")
        one.now += 3600 + KEPT_SECONDS - 1
        await one.tokens.look()
        assert len(one.tokens.views()) == 1
        one.now += 2
        await one.tokens.look()
        assert one.tokens.views() == ()

    run(scenario)


def test_only_good_tokens_take_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """When as many as may be are known, the one that ended first makes room, and its end is told; good ones stay."""
    monkeypatch.setattr(api_tokens, "MAX_TOKENS", 3)

    async def scenario(one: Clocked) -> None:
        await one.new(name="first", expires="1d")
        await one.new(name="second", expires="1h")
        await one.new(name="third", expires="2d")
        await one.tokens.revoke("third", by=OPERATOR)
        one.now += 7200
        for name in ("fourth", "fifth"):
            await one.new(name=name)
            one.now += 1
        assert [view.name for view in one.tokens.views()] == ["first", "fourth", "fifth"]
        assert [kind for kind, _ in one.events()].count("TokenExpired") == 1
        with pytest.raises(Refused) as caught:
            await one.new(name="sixth")
        assert (caught.value.status, caught.value.code) == (409, "too-many-tokens")
        assert "cloudlunacy token revoke" in caught.value.hint
        await one.tokens.revoke("fourth", by=OPERATOR)
        assert (await one.new(name="sixth")).state == "good"

    later = run(scenario)
    assert [token.name for token in later.store.disk.api_tokens.values()] == ["first", "fifth", "sixth"]


@pytest.mark.parametrize("token", ["clt_" + "0" * 20 + ".", "0" * 20 + "."])
def test_a_token_in_place_of_its_name_is_not_repeated(token: str) -> None:
    """Whoever sends a whole token to be revoked means its id; what is unknown is told without the secret."""

    async def scenario(one: Clocked) -> None:
        with pytest.raises(Refused) as caught:
            await one.tokens.revoke(token + "canary" * 7, by=OPERATOR)
        assert (caught.value.status, caught.value.code) == (404, "unknown-token")
        assert "canary" not in str(caught.value)
        new = await one.new()
        assert (await one.tokens.revoke(new.token.get_secret_value(), by=OPERATOR)).state == "revoked"

    run(scenario)


def test_a_token_lives_for_a_year_at_most() -> None:
    """Longer is refused; so are scopes that are none, none at all, and one that makes tokens."""

    async def scenario(one: Clocked) -> None:
        with pytest.raises(Refused) as caught:
            await one.new(expires="367d")
        assert (caught.value.status, caught.value.code) == (422, "lives-too-long")

    run(scenario)
    for scopes in ([], ["admin"], ["agent"], ["validate"], ["read"] * 8):
        with pytest.raises(ValueError, match="scopes"):
            ApiTokenRequest.model_validate({"kind": "ci", "scopes": scopes})


def test_the_authenticator_gives_what_the_token_says(keys: KeyStore) -> None:
    """The identity has its name and scopes; what goes on is looked at again after five minutes."""

    async def scenario(one: Clocked) -> None:
        door = Authenticator(
            issuer=ISSUER, origins=(), keys=keys, agents=Agents(), replays=ReplayCache(), given=one.tokens
        )
        token = (await one.new("plan", "enrol", kind="person", name="ann")).token.get_secret_value()
        identity = door.authenticate("GET", ISSUER, {"Authorization": f"Bearer {token}"}, one.now)
        assert (str(identity), identity.scopes) == ("person:ann", frozenset({"plan", "enrol"}))
        assert identity.accepted_until == one.now + 300
        identity.require("plan")
        for scope in ("read", "approve", "operate", "admin", "agent"):
            with pytest.raises(Refused) as caught:
                identity.require(scope)
            assert (caught.value.status, caught.value.code) == (403, "insufficient-scope")
        with pytest.raises(Refused):
            door.authenticate("GET", ISSUER, {"Authorization": f"DPoP {token}", "DPoP": "x"}, one.now)

    run(scenario)


def test_read_includes_plan_and_nothing_else(keys: KeyStore) -> None:
    """Whoever may read everything may read what changes are compared with."""

    async def scenario(one: Clocked) -> None:
        door = Authenticator(
            issuer=ISSUER, origins=(), keys=keys, agents=Agents(), replays=ReplayCache(), given=one.tokens
        )
        token = (await one.new("read")).token.get_secret_value()
        identity = door.authenticate("GET", ISSUER, {"Authorization": f"bearer {token}"}, one.now)
        identity.require("read")
        identity.require("plan")
        with pytest.raises(Refused):
            identity.require("approve")

    run(scenario)
