"""Attacks over the network and by agents, on the real ``serve`` and git server; who holds which secret afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from agent.credentials import Credentials
from agent.enrol import EnrolmentFailed, Wanted, enrol
from agent.keys import AgentKey
from schemas.session import SUBPROTOCOL
from tests.support import documents
from tests.support.attacked import GIT_TOKEN, LOGIN, SEALED_VALUE, WEBHOOK_SECRET, Attacked, attacked
from tests.support.git_repos import git
from tests.support.waiting import wait_for

SLOW_HEADS: Final = 2.0
IMPATIENT: Final = f"""
import sys
import reconciler.web.server as server
server.HEAD_SECONDS = server.HANDSHAKE_SECONDS = {SLOW_HEADS}
from reconciler.__main__ import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """An installation with two enrolled agents; its server waits two seconds for a head, not ten."""
    folder = tmp_path_factory.mktemp("network")
    (folder / "entry.py").write_text(IMPATIENT)
    with attacked(folder, entry=[sys.executable, str(folder / "entry.py")]) as running:
        for name in ("vps-1", "vps-2"):
            running.tokens[name] = running.one.token(name)
            done = running.one.enrol(name, token=running.tokens[name])
            assert done.returncode == 0, done.stderr
        running.one.run_agent("vps-2")
        running.one.wait_connected("vps-2")
        in_service(running)
        yield running


def in_service(plane: Attacked) -> None:
    tip = plane.one.repo.tip() or ""
    wait_for(lambda: (plane.one.status(tip) or {}).get("state") == "Converged", 60, what="the tip in service")


def headers_of(plane: Attacked, name: str, method: str, url: str) -> dict[str, str]:
    async def make() -> dict[str, str]:
        credentials = Credentials.load(plane.one.agent_data(name))
        try:
            return await credentials.headers(method, url)
        finally:
            await credentials.close()

    return asyncio.run(make())


FOR_ANYBODY_KNOWN = frozenset({"/api/v1/whoami"})
"""Where whoever has credentials learns what they are good for."""


def test_no_agent_may_do_what_is_an_operators(plane: Attacked) -> None:
    """Each endpoint for operators refuses nobody's with 401 and an agent's with 403."""
    paths = plane.one.client.get("/openapi.json").json()["paths"]
    asked = 0
    for path, operations in paths.items():
        for method, operation in operations.items():
            if not any("token" in one for one in operation.get("security", [])) or path in FOR_ANYBODY_KNOWN:
                continue
            asked += 1
            url = f"{plane.one.url}{re.sub('{[a-z]+}', 'newest', path)}"
            assert plane.one.client.request(method, url).status_code == 401, path
            headers = headers_of(plane, "vps-1", method.upper(), url)
            assert plane.one.client.request(method, url, headers=headers, json={}).status_code == 403, path
    assert asked >= 10


def test_an_agent_is_only_itself(plane: Attacked) -> None:
    """With its own key an agent reads no other's enrolment, opens no stream as another, and replays no proof."""
    one, own = plane.one, AgentKey.load(plane.one.agent_data("vps-1"))
    foreign = f"{one.url}/api/v1/agents/enrolments/{plane.tokens['vps-2'].partition('.')[0]}"
    proof = own.dpop_proof("GET", foreign, now=time.time())
    assert one.client.get(foreign, headers={"DPoP": proof}).status_code == 401
    mine = f"{one.url}/api/v1/agents/enrolments/{plane.tokens['vps-1'].partition('.')[0]}"
    proof = own.dpop_proof("GET", mine, now=time.time())
    assert one.client.get(mine, headers={"DPoP": proof}).status_code == 200
    assert one.client.get(mine, headers={"DPoP": proof}).status_code == 401


async def talk(plane: Attacked, name: str, *messages: dict[str, Any]) -> str:
    """Connect as ``name``, say these messages, and return the reason with which the server closed."""
    credentials = Credentials.load(plane.one.agent_data(name))
    url = credentials.stream_url
    headers = await credentials.headers("GET", url)
    try:
        options: Any = {"subprotocols": [SUBPROTOCOL], "proxy": None, "ssl": plane.one.tls}
        async with connect(url, additional_headers=headers, **options) as socket:
            assert "permessage-deflate" not in str(socket.response)
            try:
                for message in messages:
                    await socket.send(json.dumps(message))
                async with asyncio.timeout(5):
                    while True:
                        await socket.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.reason if closed.rcvd else ""
    finally:
        await credentials.close()


def hello(name: str, sequence: int = 1) -> dict[str, Any]:
    return {"type": "hello", "sequence": sequence, "protocol": 1, "agent": name, "version": "1"}


def test_frames_of_another_replayed_or_out_of_order_change_nothing(plane: Attacked) -> None:
    """A foreign name, a doubled, a lost and a forged frame each end the stream, and no status changes."""
    lie = {"type": "report", "generation": 999, "digest": "sha256:" + "0" * 64, "outcome": "failed", "message": "lie"}
    beat = {"type": "heartbeat", "sequence": 2, "appliedGeneration": 999}
    before = plane.one.agent("vps-2")
    cases = {
        "ForeignName": [hello("vps-2")],
        "SequenceBroken": [hello("vps-1"), beat, beat],
        "UnexpectedMessage": [{**beat, "sequence": 1}],
        "InvalidMessage": [hello("vps-1"), {**lie, "sequence": 2, "agent": "vps-2"}],
    }
    for reason, messages in cases.items():
        assert asyncio.run(talk(plane, "vps-1", *messages)) == reason
    gap = [hello("vps-1"), {**lie, "sequence": 2}, {**beat, "sequence": 4}]
    assert asyncio.run(talk(plane, "vps-1", *gap)) == "SequenceBroken"
    after = plane.one.agent("vps-2")
    assert before is not None
    assert after is not None
    same = ("connected", "outcome", "message", "appliedGeneration", "wantedGeneration")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    told = plane.one.agent("vps-1")
    assert told is not None
    assert (told["message"], told["outcome"]) != ("lie", "failed")


def wanted(plane: Attacked, name: str, token: str, **more: Any) -> Wanted:
    said: dict[str, Any] = {"address": "127.0.0.1", "ca_sha256": plane.one.ca_sha256, **more}
    return Wanted(server=plane.one.url, token=SecretStr(token), name=name, **said)


def test_of_two_thieves_with_one_token_one_wins(plane: Attacked, tmp_path: Path) -> None:
    """At once, one of several keys is enrolled; the token is spent, is for one name, and guesses are told nothing."""

    async def race(token: str) -> list[Any]:
        tries = [enrol(wanted(plane, "raced", token), tmp_path / f"{n}", wait_seconds=20) for n in range(6)]
        return await asyncio.gather(*tries, return_exceptions=True)

    token = plane.one.token("raced")
    answers = asyncio.run(race(token))
    won = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(won) == 1
    assert {type(answer) for answer in answers if answer not in won} == {EnrolmentFailed}
    assert won[0].thumbprint in plane.one.repo.show("agents/raced.yaml")
    assert plane.one.repo.log().count("Enrol agent raced") == 1
    other = plane.one.token("one-name")
    for name, offered in (("raced", token), ("another", other), ("one-name", f"{other[:-2]}xx"), ("one-name", "x.y")):
        with pytest.raises(EnrolmentFailed):
            asyncio.run(enrol(wanted(plane, name, offered), tmp_path / "late", wait_seconds=5))
    in_service(plane)


def test_an_address_stays_with_its_agent(plane: Attacked, tmp_path: Path) -> None:
    """No newcomer gets the address of another, an internal one or a disguised one, and nobody's backends move."""

    async def claim(name: str, address: str, token: str) -> str:
        try:
            await enrol(wanted(plane, name, token, address=address), tmp_path / name, wait_seconds=20)
        except EnrolmentFailed as failure:
            return str(failure)
        return ""

    assert asyncio.run(claim("far", "192.0.2.50", plane.one.token("far"))) == ""
    in_service(plane)
    thief = plane.one.token("thief")
    assert "192.0.2.50 is the address of agent" in asyncio.run(claim("thief", "192.0.2.50", thief))
    assert "192.0.2.50 is the address of agent" in asyncio.run(claim("thief", "::ffff:192.0.2.50", thief))
    for address in ("169.254.169.254", "0.0.0.0", "0x7f000001", "::ffff:169.254.169.254", "2130706433"):
        assert asyncio.run(claim("thief", address, thief)) != ""
    assert "agents/thief.yaml" not in plane.one.repo.files()
    assert "192.0.2.50" in plane.one.repo.show("agents/far.yaml")
    assert asyncio.run(claim("vps-1", "192.0.2.99", plane.one.token("vps-1"))) != ""
    assert "192.0.2.99" not in plane.one.repo.show("agents/vps-1.yaml")
    assert plane.answerer() == "victim"


def test_each_enrolment_is_one_commit_with_author_and_trailer(plane: Attacked) -> None:
    """Every commit of ours touches one agent's file, and says who, with which token and which key."""
    log = git("-C", plane.one.repo.path, "log", "--format=%H|%an|%s", "main").split("\n")
    ours = [line.split("|") for line in log if "|Enrol agent " in line]
    assert len(ours) >= 4
    for revision, author, subject in ours:
        name = subject.removeprefix("Enrol agent ")
        shown = git("-C", plane.one.repo.path, "show", "--format=%(trailers:only,unfold)", "--name-only", revision)
        assert author == name
        assert "CloudLunacy-Token: " in shown
        assert "CloudLunacy-Thumbprint: " in shown
        assert shown.splitlines()[-1] == f"agents/{name}.yaml"
        assert sum(line.startswith("agents/") for line in shown.splitlines()) == 1
    assert len({subject for _, _, subject in ours}) == len(ours)


def test_the_timeline_only_grows(plane: Attacked) -> None:
    """No method of the API changes or deletes an event, and what was there comes first, unchanged, later on."""
    before = plane.one.ask("/events", limit=1000)["events"]
    assert before
    for method in ("DELETE", "PUT", "PATCH", "POST"):
        for path in ("/api/v1/events", f"/api/v1/events/{before[0]['id']}"):
            status = plane.one.client.request(method, path, headers=plane.one.headers()).status_code
            assert status in (404, 405)
    only = "certificates/victim.yaml"
    certificate = plane.one.repo.show(only)
    held = plane.one.status_wait(plane.one.push({only: None}, "Delete every certificate"), "Held")
    assert plane.one.post("/approvals", {"checksum": f"rewrite:{'1' * 40}..{'2' * 40}"}).status_code == 409
    assert plane.one.post("/approvals", {"checksum": held["approve"]}).status_code == 201
    plane.one.status_wait(held["revision"], "Converged")
    assert plane.quarantined({only: certificate}) == set()
    after = plane.one.ask("/events", limit=1000)["events"]
    assert after[: len(before)] == before
    assert [event["actor"] for event in after[len(before) :] if event["type"] == "PlanApproved"] == ["operator:local"]


@pytest.mark.parametrize("query", ["limit=000000000000000000001001", "after=00000000000000000000099999999999999999999"])
def test_a_number_cannot_hide_behind_zeros(plane: Attacked, query: str) -> None:
    """A number is refused by its size, however it is written."""
    answer = plane.one.client.get(f"/api/v1/events?{query}", headers=plane.one.headers())
    assert answer.status_code == 400


def signed(body: bytes, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def test_a_storm_of_webhooks_fetches_seldom(plane: Attacked) -> None:
    """Forged, replayed and giant deliveries wake nobody; a storm of good ones costs few looks at the remote."""
    one, body = plane.one, b'{"ref": "refs/heads/main"}'
    post = one.client.post
    assert post("/webhooks/git", content=body, headers=signed(body, "guess")).status_code == 401
    assert post("/webhooks/git", content=body).status_code == 401
    once = {**signed(body), "X-GitHub-Delivery": "one"}
    assert post("/webhooks/git", content=body, headers=once).json()["accepted"] is True
    assert post("/webhooks/git", content=body, headers=once).json()["accepted"] is False
    assert raw(plane, b"POST /webhooks/git HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n").startswith(
        b"HTTP/1.1 413"
    )
    before, memory = len(plane.git.requests), peak(plane)

    async def storm() -> set[int]:
        async with httpx.AsyncClient(base_url=one.url, verify=one.tls, trust_env=False) as client:

            async def some(which: int) -> list[int]:
                headers = [{**signed(body), "X-GitHub-Delivery": f"{which}-{n}"} for n in range(60)]
                return [(await client.post("/webhooks/git", content=body, headers=h)).status_code for h in headers]

            return {status for found in await asyncio.gather(*map(some, range(10))) for status in found}

    assert asyncio.run(storm()) == {202}
    assert len(plane.git.requests) - before < 300
    assert peak(plane) - memory < 20 * 1024


def peak(plane: Attacked) -> int:
    assert plane.one.process is not None
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{plane.one.process.pid}/status").read_text())[0])


def raw(plane: Attacked, request: bytes) -> bytes:
    with plane.one.connect() as connection:
        connection.sendall(request)
        return connection.recv(4096)


def test_thousands_of_sockets_and_slow_heads_hold_up_nobody(plane: Attacked) -> None:
    """While two thousand peers say little or nothing, others are answered; the silent ones are dropped."""
    starts = [b"", b"GET / HT", b"POST /webhooks/git HTTP/1.1\r\nHost: a\r\nA: b\r\n"]
    assert raw(plane, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000).startswith(b"HTTP/1.1 4")
    assert raw(plane, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n").startswith(b"HTTP/1.1 431")
    with ExitStack() as stack:
        peers = []
        for number in range(2000):
            if number % 4:
                peer = stack.enter_context(plane.one.connect())
                peer.sendall(starts[number % len(starts)])
            else:  # not even a handshake
                peer = stack.enter_context(socket.create_connection(("127.0.0.1", plane.one.port), 10))
            peers.append(peer)
        assert plane.one.client.get("/healthz").elapsed.total_seconds() < 2
        assert plane.one.agent("vps-2") is not None
        for peer in peers:
            peer.settimeout(SLOW_HEADS + 5)
            while peer.recv(4096):
                pass
    assert plane.one.client.get("/healthz").status_code == 200


def test_words_of_a_hostile_git_host_reach_no_terminal(plane: Attacked) -> None:
    """Escape codes in a commit and in what the remote says to a push are in no log, answer or output."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202eevil"
    revision = plane.one.repo.commit({"note.txt": evil}, message=f"{evil}\n\nEvil: {evil}")
    in_service(plane)
    hook = plane.one.repo.path / "hooks" / "pre-receive"
    plane.one.repo.install_hook("pre-receive", r"printf '\033[31mremote says no\033[0m\n' >&2; exit 1")
    with ThreadPoolExecutor(1) as pool:
        enrolling = pool.submit(plane.one.enrol, "unlucky")
        wait_for(lambda: "enrolments cannot be pushed, trying again" in plane.one.log(), 40, what="the refusal")
        hook.unlink()
        enrolled = enrolling.result()
    assert enrolled.returncode == 0, enrolled.stderr
    in_service(plane)
    told = plane.one.cli("status", revision)
    everything = plane.one.log() + told.stdout + told.stderr + enrolled.stdout + enrolled.stderr
    assert not {character for character in everything if not character.isprintable()} - {"\n"}
    assert "\x1b" not in json.dumps(plane.one.ask("/events", limit=1000), ensure_ascii=False)
    force = plane.one.repo.commit_on_nothing({"fleet.yaml": documents.fleet()}, message="Another history")
    assert plane.one.status_wait(force)["reason"] == "HistoryRewritten"
    assert plane.answerer() == "victim"


def test_no_secret_is_anywhere_but_in_its_place(plane: Attacked) -> None:
    """Tokens, keys, the webhook secret and sealed values are in no git object, log, database, answer or argv."""
    one = plane.one
    secrets = {"git token": GIT_TOKEN, "webhook": WEBHOOK_SECRET, "sealed": SEALED_VALUE, "login": LOGIN}
    secrets |= {f"token {name}": token.partition(".")[2] for name, token in plane.tokens.items()}
    held = [path for path in (one.data / "keys").rglob("*") if path.is_file() and holds_key(path)]
    keys = [path for path in held if path.name != "default-certificate.pem"]  # Traefik's
    for path in [*keys, *(one.agent_data(name) / "key.pem" for name in plane.tokens)]:
        secret = path.read_text().rpartition("END CERTIFICATE-----")[2]
        lines = [line for line in secret.splitlines() if line and not line.startswith(("-", "#"))]
        secrets[str(path)] = lines[len(lines) // 2]
    places = {"log": one.log(), "agent's log": one.agent_log("vps-2"), "command lines": command_lines()}
    for path in (*one.data.rglob("*"), *one.agent_data("vps-1").iterdir(), *plane.front.directory.iterdir()):
        kept = one.data / "keys" in path.parents or path.name in ("key.pem", "credentials.json")
        if path.is_file() and not kept:
            places[str(path)] = path.read_bytes().decode("latin-1")
    for question in ("/status", "/revisions", "/objects", "/agents", "/events", "/state"):
        places[f"API {question}"] = json.dumps(one.ask(question))
    for page in ("/metrics", "/openapi.json", "/.well-known/jwks.json", "/healthz", "/readyz"):
        places[page] = one.client.get(page).text
    for repository in (one.repo.path, one.data / "mirror" / "repository.git"):
        objects = git("-C", repository, "cat-file", "--batch", "--batch-all-objects")
        places[f"git {repository}"] = objects
    assert len(secrets) > 12
    assert "Enrol agent vps-1" in places[f"git {one.repo.path}"]
    found = [(name, place) for name, value in secrets.items() for place, text in places.items() if value in text]
    for_traefik = {"login", *(str(path) for path in (one.data / "keys" / "certificates").rglob("key.pem"))}
    """What a front has to know."""
    published = {str(one.published), str(plane.front.file.staging)}
    assert {place for name, place in found if name in for_traefik} <= published
    assert [(name, place) for name, place in found if name not in for_traefik] == []


def holds_key(path: Path) -> bool:
    return any(mark in path.read_bytes() for mark in (b"PRIVATE KEY", b"AGE-SECRET-KEY"))


def command_lines() -> str:
    """Return the arguments of every process of this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode("latin-1"))
        except OSError:
            continue
    return "\n".join(lines)


def test_endless_registrations_are_slowed_down(plane: Attacked, tmp_path: Path) -> None:
    """Guesses end in 429 with a time to wait, and make no commit."""
    tip, statuses = plane.one.repo.tip(), []
    key = AgentKey.load_or_create(tmp_path / "guesser")
    with httpx.Client(base_url=plane.one.url, verify=plane.one.tls, trust_env=False) as client:
        for number in range(100):
            token = f"{number:020x}.{'x' * 32}"
            proof = key.enrolment_proof(token_id=token.partition(".")[0], name="spam", now=time.time())
            body = {"token": token, "name": "spam", "publicKey": key.public.model_dump(), "proof": proof}
            answer = client.post("/api/v1/agents/enrol", json={**body, "address": "127.0.0.1"})
            statuses.append(answer.status_code)
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 70
    assert int(answer.headers["Retry-After"]) >= 1
    assert plane.one.repo.tip() == tip


def test_ids_of_events_have_no_gaps(plane: Attacked) -> None:
    """Each event's id follows the one before: one that is taken out would be missed."""
    with sqlite3.connect(f"file:{plane.one.data / 'state.db'}?mode=ro", uri=True) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM events ORDER BY id")]
    connection.close()
    assert ids == list(range(ids[0], ids[0] + len(ids)))
