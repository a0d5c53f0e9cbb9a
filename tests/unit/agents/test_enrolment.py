"""Enrolment: one token, one key, and what an agent may say of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.agents.enrolment import check_policy
from reconciler.errors import Refused
from schemas.agent import Agent
from schemas.enrolment import Enrolment
from tests.support.tokens import NOW, jwk, thumbprint
from tests.unit.agents.enrolling import KEY, OTHER, PEER, Plane, World, fleet, refusal, request, run


def agent(thumbprint_of: str | None, state: str = "active", address: str = "10.0.0.9") -> Agent:
    identity = {} if thumbprint_of is None else {"identity": {"thumbprint": thumbprint_of}}
    document = {"apiVersion": "cloudlunacy/v1", "kind": "Agent", "metadata": {"name": "vps-9"}}
    return Agent.model_validate({**document, "spec": {"address": address, "state": state, **identity}})


def test_an_enrolment_is_a_commit() -> None:
    """The file is on the branch, written by the agent as author, with the token's id and the key as trailers."""
    answers: list[Enrolment] = []

    async def scenario(one: Plane) -> None:
        answers.append(await one.enrolments.enrol(request(KEY, await one.token()), peer=PEER))

    world = run(scenario)
    commit = world.remote.log[0]
    answer = answers[0]
    assert (answer.state, answer.thumbprint, answer.revision is None) == ("committed", thumbprint(KEY), False)
    assert list(world.remote.main) == ["agents/vps-9.yaml"]
    assert (commit.author_name, commit.author_email) == ("vps-9", "vps-9@agents.cloudlunacy.test")
    assert set(commit.trailers) == {"CloudLunacy-Token", "CloudLunacy-Thumbprint"}
    assert commit.trailers["CloudLunacy-Thumbprint"] == thumbprint(KEY)
    assert [event.type for event in world.disk.events] == ["AgentEnrolled"]
    assert world.woken == 1


def test_of_two_keys_with_one_token_exactly_one_wins() -> None:
    """A hundred times over, two keys use one token at once: one is enrolled, the other is told that it is spent."""
    codes: list[list[str]] = []

    async def attempt(one: Plane, token: str, name: str, key: Any) -> str:
        try:
            return (await one.enrolments.enrol(request(key, token, name), peer=PEER)).state
        except Refused as refused:
            return refused.code

    async def scenario(one: Plane) -> None:
        for number in range(100):
            token = await one.token(f"a{number}")
            both = (attempt(one, token, f"a{number}", key) for key in (KEY, OTHER))
            codes.append(sorted(await asyncio.gather(*both)))

    world = World(fleet=fleet(registration={"agentsPerHour": 1000}))

    async def roomy(one: Plane) -> None:
        one.enrolments._callers._capacity = 1000
        await scenario(one)

    run(roomy, world)
    assert codes == [["committed", "token-spent"]] * 100
    assert len(world.remote.main) == 100


def test_the_same_key_may_ask_again() -> None:
    """A lost answer costs nothing: the same request gets the same answer and makes no second commit, even late."""
    answers = []

    async def scenario(one: Plane) -> None:
        token = await one.token()
        for later in (0, 1, 3600):
            one.world.now = NOW + later
            said = request(KEY, token, now=NOW + later)
            answers.append(await one.enrolments.enrol(said, peer=PEER))

    world = run(scenario)
    assert answers[0] == answers[1] == answers[2]
    assert len(world.remote.log) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), (401, "bad-token")),
        (lambda t: "0" * 20 + t[20:], (401, "bad-token")),
        (lambda t: t.replace(".", ""), (401, "bad-token")),
        (lambda t: "", (401, "bad-token")),
        (lambda t: "ä" * 50, (401, "bad-token")),
    ],
    ids=["wrong secret", "unknown id", "no dot", "empty", "not ASCII"],
)
def test_a_wrong_token_is_refused_alike(change: Callable[[str], str], expected: tuple[int, str]) -> None:
    """Unknown id and wrong secret are the same answer, and the true token is still good."""

    async def scenario(one: Plane) -> None:
        token = await one.token()
        assert await refusal(one.enrolments.enrol(request(KEY, change(token)), peer=PEER)) == expected
        assert (await one.enrolments.enrol(request(KEY, token), peer=PEER)).state == "committed"

    run(scenario)


def test_a_token_is_for_one_name() -> None:
    """A token made for one agent enrols no other."""

    async def scenario(one: Plane) -> None:
        call = one.enrolments.enrol(request(KEY, await one.token("vps-1"), "vps-2"), peer=PEER)
        assert await refusal(call) == (403, "token-for-another-agent")

    assert run(scenario).remote.main == {}


def test_a_late_token_is_refused() -> None:
    """After its time a token enrols nobody."""

    async def scenario(one: Plane) -> None:
        token = await one.token(ttl=60)
        one.world.now = NOW + 61
        assert await refusal(one.enrolments.enrol(request(KEY, token), peer=PEER)) == (403, "token-spent")

    run(scenario)


def test_a_token_lives_fifteen_minutes_at_most() -> None:
    """A longer life is refused when the token is made."""

    async def scenario(one: Plane) -> None:
        assert await refusal(one.token(ttl=901)) == (422, "ttl-too-long")
        assert await refusal(one.token(ttl=0)) == (422, "ttl-too-long")

    run(scenario)


def test_a_stolen_proof_enrols_nobody_else() -> None:
    """The proof is by the key in the request; another key with the same proof is refused and the token stays good."""

    async def scenario(one: Plane) -> None:
        token = await one.token()
        good = request(KEY, token)
        stolen = good.model_copy(update={"public_key": request(OTHER, token).public_key})
        assert await refusal(one.enrolments.enrol(stolen, peer=PEER)) == (401, "bad-signature")
        assert (await one.enrolments.enrol(good, peer=PEER)).state == "committed"

    run(scenario)


def test_guessing_is_slowed_down_for_each_caller() -> None:
    """Who keeps guessing gets 429 with a time to wait, and others are not held up."""

    async def scenario(one: Plane) -> None:
        token = await one.token()
        wrong = request(KEY, "0" * 20 + "." + "x" * 32)
        codes = {(await refusal(one.enrolments.enrol(wrong, peer=PEER)))[0] for _ in range(60)}
        with pytest.raises(Refused) as caught:
            await one.enrolments.enrol(request(KEY, token), peer=PEER)
        assert codes == {401}
        assert caught.value.status == 429
        assert caught.value.retry_after is not None
        assert (await one.enrolments.enrol(request(KEY, token), peer="192.0.2.8")).state == "committed"

    run(scenario)


def test_the_fleet_caps_enrolments_an_hour() -> None:
    """Beyond the cap an enrolment is answered 429, and its token is not used up."""

    async def scenario(one: Plane) -> None:
        tokens = [await one.token(f"a{number}") for number in range(3)]
        for number in range(2):
            await one.enrolments.enrol(request(KEY, tokens[number], f"a{number}"), peer=PEER)
        third = one.enrolments.enrol(request(KEY, tokens[2], "a2"), peer=PEER)
        assert await refusal(third) == (429, "too-many-enrolments")
        assert one.store.disk.tokens[tokens[2].split(".")[0]].used_by is None

    run(scenario, World(fleet=fleet(registration={"agentsPerHour": 2})))


def test_another_identity_in_service_is_a_conflict_that_costs_no_token() -> None:
    """While the agent is enrolled with another key the answer is 409, before anything is written."""
    world = World()
    world.directory.update({"vps-9": agent(thumbprint(OTHER))})

    async def scenario(one: Plane) -> None:
        token = await one.token()
        assert await refusal(one.enrolments.enrol(request(KEY, token), peer=PEER)) == (409, "identity-exists")
        assert one.store.disk.tokens[token.split(".")[0]].used_by is None

    assert run(scenario, world).disk.entries == {}


def test_a_conflict_at_the_tip_is_told() -> None:
    """Somebody enrolled the name between the published revision and the tip: 409 with the sentence of the edit."""
    world = World()
    world.remote.main["agents/vps-9.yaml"] = f"spec:\n  identity:\n    thumbprint: {thumbprint(OTHER)}\n".encode()

    async def scenario(one: Plane) -> None:
        call = one.enrolments.enrol(request(KEY, await one.token()), peer=PEER)
        assert await refusal(call) == (409, "enrolment-conflict")

    assert [event.type for event in run(scenario, world).disk.events] == ["EnrolmentConflicted"]


@pytest.mark.parametrize(
    ("changed", "peer", "expected"),
    [
        ({"labels": {"tier": "gold"}}, PEER, (403, "label-reserved")),
        ({"address": "127.0.0.1"}, PEER, (422, "address-refused")),
        ({"address": "::ffff:127.0.0.1"}, PEER, (422, "address-refused")),
        ({"address": "localhost"}, PEER, (422, "address-refused")),
        ({"address": "localhost.localdomain"}, PEER, (422, "address-refused")),
        ({"address": "ip6-loopback"}, PEER, (422, "address-refused")),
        ({"address": "localtest.me"}, PEER, (422, "address-refused")),
        ({"address": "metadata.google.internal"}, PEER, (422, "address-refused")),
        ({"address": "vps-9.example.net"}, PEER, (422, "address-refused")),
        ({"address": "vps-9.example.net"}, "::ffff:127.0.0.1", None),
        ({"address": "::ffff:169.254.169.254"}, "127.0.0.1", (422, "address-refused")),
        ({"address": "169.254.169.254"}, PEER, (422, "address-refused")),
        ({"address": "0.0.0.0"}, PEER, (422, "address-refused")),
        ({"address": "224.0.0.1"}, PEER, (422, "address-refused")),
        ({"address": "127.0.0.1"}, "127.0.0.1", None),
        ({"address": "10.1.2.3", "labels": {"region": "ams"}}, PEER, None),
    ],
)
def test_an_agent_may_not_say_everything_of_itself(
    changed: dict[str, Any], peer: str, expected: tuple[int, str] | None
) -> None:
    """Labels by which teams select, and addresses that are not its own, are refused before anything is written."""
    world = World(fleet=fleet(teams=[{"name": "shop", "agentSelector": {"tier": "gold"}}]))
    said = request(KEY, "0" * 20 + "." + "x" * 32, **changed)

    if expected is None:
        check_policy(said, world.fleet, world.directory, peer)
        return
    with pytest.raises(Refused) as caught:
        check_policy(said, world.fleet, world.directory, peer)
    assert (caught.value.status, caught.value.code) == expected


@pytest.mark.parametrize(
    ("name", "address", "taken"),
    [
        ("thief", "192.0.2.10", True),
        ("thief", "::ffff:192.0.2.10", True),
        ("thief", "::FFFF:c000:20a", True),
        ("thief", "victim.example.net", True),
        ("thief", "192.0.2.11", False),
        ("victim", "192.0.2.10", False),
        ("thief", "127.0.0.1", False),
    ],
)
def test_an_address_belongs_to_the_agent_that_has_it(name: str, address: str, taken: bool) -> None:
    """A newcomer cannot take over the backends of another by giving its address; loopback is shared by all."""
    world = World()
    known = [("victim", "192.0.2.10"), ("named", "victim.example.net"), ("local", "127.0.0.1")]
    world.directory.update({one: agent(None, address=at) for one, at in known})
    said = request(KEY, "0" * 20 + "." + "x" * 32, name, address=address)
    if not taken:
        check_policy(said, world.fleet, world.directory, "127.0.0.1")
        return
    with pytest.raises(Refused) as caught:
        check_policy(said, world.fleet, world.directory, "127.0.0.1")
    assert (caught.value.status, caught.value.code) == (409, "address-taken")


def test_in_mode_pull_request_the_branch_waits_for_a_person() -> None:
    """A branch of its own is pushed, the answer says proposed, and committed once the file is in service."""
    world = World(fleet=fleet(registration={"mode": "pull-request"}))

    async def scenario(one: Plane) -> None:
        token = await one.token()
        answer = await one.enrolments.enrol(request(KEY, token), peer=PEER)
        world.directory.update({"vps-9": agent(thumbprint(KEY))})
        merged = await one.enrolments.status(token.split(".")[0], lambda _: None)
        assert (answer.state, merged.state) == ("proposed", "committed")

    run(scenario, world)
    assert list(world.remote.branches["enrol/vps-9"]) == ["agents/vps-9.yaml"]
    assert world.remote.main == {}


def test_the_secret_is_nowhere_but_in_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither disk, commits, representations, refusals nor logs hold the token's secret or a private key."""
    seen: list[str] = []
    secret: list[str] = []

    async def scenario(one: Plane) -> None:
        token = await one.token()
        secret.append(token.split(".")[1])
        said = request(KEY, token)
        with pytest.raises(Refused) as caught:
            await one.enrolments.enrol(said.model_copy(update={"name": "vps-1"}), peer=PEER)
        answer = await one.enrolments.enrol(said, peer=PEER)
        new = await one.tokens.create("x", ttl=60, created_by="o", now=NOW)
        secret.append(new.token.split(".")[1])
        seen.extend([repr(said), str(said), said.model_dump_json(), repr(caught.value), repr(answer), repr(new)])

    world = run(scenario)
    printed = capsys.readouterr()
    everything = "".join([*seen, world.disk.text(), repr(world.remote.log), repr(world.remote.main), *printed])
    assert jwk(KEY)["x"] in everything
    assert not [value for value in secret if value in everything]


def test_status_is_for_the_key_that_enrolled() -> None:
    """Whoever asks has to prove the key; an unknown enrolment is 404."""

    def stranger(_: str) -> None:
        raise Refused("no", status=401, code="key-mismatch")

    async def scenario(one: Plane) -> None:
        token = await one.token()
        unknown = one.enrolments.status(token.split(".")[0], lambda _: None)
        assert await refusal(unknown) == (404, "unknown-enrolment")
        await one.enrolments.enrol(request(KEY, token), peer=PEER)
        assert await refusal(one.enrolments.status(token.split(".")[0], stranger)) == (401, "key-mismatch")

    run(scenario)


@pytest.mark.parametrize(
    ("former", "present", "revoked"),
    [
        (agent("a" * 43), None, True),
        (agent("a" * 43), agent("b" * 43), True),
        (agent("a" * 43), agent(None), True),
        (agent("a" * 43), agent("a" * 43, "quarantined"), True),
        (agent("a" * 43), agent("a" * 43, "cordoned"), False),
        (agent("a" * 43), agent("a" * 43), False),
        (agent(None), agent("a" * 43), False),
        (agent(None), None, False),
    ],
)
def test_the_directory_tells_who_was_revoked(former: Agent, present: Agent | None, revoked: bool) -> None:
    """A file that goes, another key and quarantine revoke; enrolment, cordoning and no change do not."""
    world = World()
    world.directory.update({"vps-9": former})

    found = world.directory.update({} if present is None else {"vps-9": present})
    assert found == ({"vps-9"} if revoked else set())
