"""The HTTP API of a running control plane: shapes, who may ask what, streams, metrics, and rude clients."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import psutil
import pytest

from agent.credentials import Credentials
from reconciler.pki.operator_credential import OperatorCredential
from schemas.status import STAGES
from tests.support import documents
from tests.support.fleet import Installation, installation, start_files, web
from tests.support.waiting import wait_for

SECRET = b"only the git host knows this"
ROUTES = tuple(f"app-{number}" for number in range(5))
REVISION = "0" * 40


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("api")
    (folder / "webhook-secret").write_bytes(SECRET + b"\n")
    environment = {"CLOUDLUNACY_WEBHOOK_SECRET_FILE": str(folder / "webhook-secret")}
    with installation(folder / "one", start_files(*ROUTES), traefik=False, environment=environment) as running:
        assert running.enrol("vps-1").returncode == 0
        assert running.status_wait(running.repo.tip() or "")["state"] == "Converged"
        yield running


@pytest.fixture(scope="module")
def document(one: Installation) -> dict[str, Any]:
    found: dict[str, Any] = one.client.get("/openapi.json").json()
    return found


def agent_headers(one: Installation, method: str, path: str) -> dict[str, str]:
    async def make() -> dict[str, str]:
        credentials = Credentials.load(one.agent_data("vps-1"))
        try:
            return dict(await credentials.headers(method, f"{one.url}{path}"))
        finally:
            await credentials.close()

    return asyncio.run(make())


# --- shapes -------------------------------------------------------------------------------------------------------

READABLE = {
    "/api/v1/status": {"generation", "revision", "publishedObjects", "quarantined", "agentsConnected", "newest"},
    "/api/v1/revisions": {"revisions"},
    "/api/v1/revisions/newest": {"revision", "generation", "state", "reason", "message", "stages", "agents"},
    "/api/v1/revisions/newest/plan": {"base", "revision", "checksum", "changes", "traffic", "agents", "guard"},
    "/api/v1/objects": {"objects", "next"},
    "/api/v1/state": {"generation", "revision", "objects"},
    "/api/v1/agents": {"agents", "next"},
    "/api/v1/events": {"events"},
}
CHANGING = {"/api/v1/approvals": {"checksum": f"sha256:{'0' * 64}"}, "/api/v1/reconcile": {}}


@pytest.mark.parametrize("path", READABLE)
def test_each_answer_has_the_shape_that_openapi_says(one: Installation, document: dict[str, Any], path: str) -> None:
    """What an endpoint answers is valid for the schema that /openapi.json gives it."""
    answer = one.client.get(path, headers=one.headers("read"))
    assert answer.status_code == 200, answer.text
    asked_again = "private, no-cache" if "etag" in answer.headers else "no-store"
    assert answer.headers["cache-control"] == asked_again
    assert READABLE[path] <= answer.json().keys()
    template = path.replace("newest", "{revision}")
    schema = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())


def test_openapi_is_a_document_of_its_kind(document: dict[str, Any]) -> None:
    """Schemas are valid JSON Schema, references lead somewhere, operations have a name each and declare their paths."""
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= schemas.keys()
    operations = [(path, one) for path, methods in document["paths"].items() for one in methods.values()]
    names = [one["operationId"] for _, one in operations]
    assert len(names) == len(set(names))
    for path, one in operations:
        declared = {parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        assert all(status == "default" or status.isdigit() for status in one["responses"])
    assert {"201", "202"} <= document["paths"]["/api/v1/agents/enrol"]["post"]["responses"].keys()
    paths = {"/healthz", "/readyz", "/metrics", "/webhooks/git", "/api/v1/agents/stream"}
    paths |= {*(path.replace("newest", "{revision}") for path in READABLE), *CHANGING}
    assert paths <= document["paths"].keys()


# --- who may ask ----------------------------------------------------------------------------------------------------

BAD_TOKENS = {"none": "", "not a token": "Bearer nonsense", "basic": "Basic b3BlcmF0b3I6eA=="}


@pytest.mark.parametrize("path", [*READABLE, "/api/v1/stream", *CHANGING])
def test_only_who_may_is_answered(one: Installation, path: str) -> None:
    """Without a token, with a bad one, or with an agent's, nobody reads or changes anything."""
    method = "POST" if path in CHANGING else "GET"
    body = {"json": CHANGING[path]} if path in CHANGING else {}
    for name, value in BAD_TOKENS.items():
        answer = one.client.request(method, path, headers={"Authorization": value} if value else {}, **body)  # type: ignore[arg-type]
        assert answer.status_code == 401, name
        assert answer.headers["content-type"] == "application/problem+json"
        assert "www-authenticate" in answer.headers
    answer = one.client.request(method, path, headers=agent_headers(one, method, path), **body)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "insufficient-scope")
    if path in CHANGING:
        assert one.client.post(path, headers=one.headers("read"), **body).status_code == 403  # type: ignore[arg-type]


def test_probes_and_documentation_ask_nobody(one: Installation) -> None:
    """Probes, metrics, keys and the API's description need no token."""
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/.well-known/jwks.json"):
        assert one.client.get(path).status_code == 200, path


# --- queries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/objects?limit=x",
        "/api/v1/objects?limit=-1",
        "/api/v1/objects?limit=1e3",
        "/api/v1/objects?limit=1001",
        "/api/v1/objects?limit=" + "9" * 5000,
        "/api/v1/objects?limit=%D9%A1",
        "/api/v1/revisions?limit=",
        "/api/v1/events?after=-1",
        "/api/v1/events?after=99999999999999999999",
    ],
)
def test_a_bad_query_is_a_problem(one: Installation, path: str) -> None:
    """A query that makes no sense is answered 400 with a sentence."""
    answer = one.client.get(path, headers=one.headers("read"))
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert "must be a whole number" in answer.text


@pytest.mark.parametrize("revision", ["x", "abc", "g" * 40, REVISION, "main", "%2e%2e", "a" * 65])
def test_an_unknown_revision_is_not_found(one: Installation, revision: str) -> None:
    """What is no revision, or one that nobody looked at, is 404."""
    for path in (f"/api/v1/revisions/{revision}", f"/api/v1/revisions/{revision}/plan"):
        answer = one.client.get(path, headers=one.headers("read"))
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (404, "unknown-revision"), path


@pytest.mark.parametrize("checksum", ["", "sha256:12", "rewrite:a..b", "x" * 70_000, None, 5])
def test_what_is_no_checksum_is_not_approved(one: Installation, checksum: object) -> None:
    """An approval of something that is no checksum is refused, and says which field is wrong."""
    answer = one.client.post("/api/v1/approvals", json={"checksum": checksum}, headers=one.headers())
    assert answer.status_code in (413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_pages_are_complete(one: Installation) -> None:
    """Page after page gives each object once."""
    everything = [each["path"] for each in one.ask("/objects", limit=1000)["objects"]]
    assert len(everything) == len(ROUTES) + 3
    pages, after = [], ""
    while True:
        page = one.ask("/objects", limit=2, after=after)
        pages += [each["path"] for each in page["objects"]]
        if not (after := page["next"]):
            break
    assert pages == everything
    events = one.ask("/events", limit=1000)["events"]
    assert [event["id"] for event in one.ask("/events", after=events[1]["id"], limit=2)["events"]] == [
        event["id"] for event in events[2:4]
    ]


def test_reconcile_looks_at_once(one: Installation) -> None:
    """Asked to look now, it does not wait for the next poll."""
    assert one.post("/reconcile", {}).json()["accepted"] is True


# --- streams and metrics ----------------------------------------------------------------------------------------------


def test_the_stream_tells_each_stage(one: Installation) -> None:
    """Whoever listens hears of a commit until it has converged; of stages that follow at once only the last is told."""
    heard: list[dict[str, Any]] = []
    with one.client.stream("GET", "/api/v1/stream", headers=one.headers("read")) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        next(lines)
        revision = one.push({"routes/shop/streamed.yaml": web("streamed", 8081)})
        for line in lines:
            if not line.startswith("data: "):
                continue
            status = json.loads(line.removeprefix("data: "))
            if status["revision"] == revision:
                heard.append(status)
            if heard and heard[-1]["state"] == "Converged":
                break
    reached = [[stage for stage in STAGES if status["stages"][stage]] for status in heard]
    assert reached == sorted(reached, key=len)
    assert reached[-1] == list(STAGES)
    assert len(reached[0]) < len(STAGES)
    assert {status["state"] for status in heard} == {"Progressing", "Converged"}


def test_the_stream_ends_with_its_token(one: Installation) -> None:
    """A token that is good for another second or two opens the stream, and ends it."""
    old = OperatorCredential.load(one.data).headers(time.time() - 118, frozenset({"read"}))
    with one.client.stream("GET", "/api/v1/stream", headers=old) as stream:
        lines = [line for line in stream.iter_lines() if line]
    assert (stream.status_code, lines[0]) == (200, ": connected")
    assert lines[-2:] == ["event: expired", 'data: {"hint": "Come again with new credentials."}']
    assert one.client.get("/api/v1/status", headers=old).status_code == 401


FAMILIES = (
    *("stage_seconds", "revisions_total", "problems_total", "preflight_failures_total", "publications_total"),
    *("restores_total", "read_back_failures_total", "generation", "published_revision_info", "objects"),
    *("objects_quarantined", "convergence_lag_seconds", "polls_total", "poll_failures_total"),
    *("git_operation_seconds", "git_operation_failures_total", "webhooks_total", "group_commit_size"),
    *("pushes_total", "push_failures_total", "outbox_depth", "outbox_oldest_age_seconds", "store_replaced_total"),
    *("enrolments_total", "agents_connected", "agent_messages_total", "events_total"),
)


def test_metrics_say_what_happened(one: Installation) -> None:
    """Every family is there, and after a commit the numbers tell of it."""
    text = one.client.get("/metrics").text
    for family in FAMILIES:
        assert f"# HELP cloudlunacy_{family} " in text, family
    tip = one.repo.tip()
    assert f'cloudlunacy_published_revision_info{{revision="{tip}"}} 1.0' in text
    for stage in STAGES[:8]:
        if stage != "loaded":  # there is no front here
            assert f'cloudlunacy_stage_seconds_count{{stage="{stage}"}}' in text, stage
    assert one.metric("cloudlunacy_generation") == one.ask("/status")["generation"]
    assert one.metric("cloudlunacy_publications_total") >= 2
    assert re.search(r'cloudlunacy_revisions_total{state="Converged"} [1-9]', text)
    assert re.search(r'cloudlunacy_enrolments_total{outcome="committed"} 1', text)
    assert one.metric("cloudlunacy_pushes_total") >= 1
    assert re.search(r'cloudlunacy_git_operation_seconds_count{operation="ls-remote"} [1-9]', text)
    assert one.metric("cloudlunacy_convergence_lag_seconds") == 0


# --- webhooks -------------------------------------------------------------------------------------------------------


def signed(host: str, body: bytes, secret: bytes = SECRET, delivery: str = "") -> dict[str, str]:
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    named = {"github": "X-GitHub-Delivery", "gitea": "X-Gitea-Delivery", "forgejo": "X-Forgejo-Delivery",
             "gitlab": "X-Gitlab-Event-UUID"}  # fmt: skip
    proof = {
        "github": {"X-Hub-Signature-256": f"sha256={digest}"},
        "gitea": {"X-Gitea-Signature": digest},
        "forgejo": {"X-Forgejo-Signature": digest},
        "gitlab": {"X-Gitlab-Token": secret.decode()},
    }[host]
    return proof | ({named[host]: delivery} if delivery else {})


@pytest.mark.parametrize("host", ["github", "gitea", "forgejo", "gitlab"])
def test_a_webhook_is_faster_than_the_poll(tmp_path: Path, host: str) -> None:
    """A signed delivery makes the control plane look at once; a replayed or forged one does not."""
    (tmp_path / "secret").write_bytes(SECRET)
    environment = {"CLOUDLUNACY_WEBHOOK_SECRET_FILE": str(tmp_path / "secret")}
    with installation(tmp_path / "one", start_files("web"), traefik=False, poll=3600, environment=environment) as plane:
        revision = plane.push({"routes/shop/next.yaml": web("next", 8081)})
        body = b'{"ref": "refs/heads/main"}'
        forged = plane.client.post("/webhooks/git", content=body, headers=signed(host, body, b"a guess"))
        assert (forged.status_code, forged.json()["type"].rpartition(":")[2]) == (401, "bad-signature")
        assert plane.client.post("/webhooks/git", content=body).status_code == 401
        assert plane.status(revision) is None
        headers = signed(host, body, delivery="d-1")
        assert plane.client.post("/webhooks/git", content=body, headers=headers).json()["accepted"] is True
        assert plane.status_wait(revision)["state"] == "Converged"
        again = plane.client.post("/webhooks/git", content=body, headers=headers)
        assert (again.status_code, again.json()["accepted"]) == (202, False)


def test_a_storm_of_webhooks_costs_little(one: Installation) -> None:
    """10,000 forged and 1,000 signed deliveries make few looks at the remote, and the memory stays as it was."""
    assert one.process is not None
    process = psutil.Process(one.process.pid)
    body = b'{"ref": "refs/heads/main"}' * 20
    before, polls = process.memory_info().rss, one.polls()

    numbers = iter(range(11_000))
    codes: list[int] = []

    async def post_all() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=one.tls)
        for number in numbers:
            headers = signed("github", body, SECRET if number % 11 == 0 else b"a guess", f"d-{number}")
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            length = f"Host: 127.0.0.1:{one.port}\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"POST /webhooks/git HTTP/1.1\r\n{length}{head}\r\n".encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            found = re.search(r"content-length: (\d+)", answer, re.IGNORECASE)
            assert found is not None
            await reader.readexactly(int(found[1]))
            codes.append(int(answer.split(" ")[1]))
        writer.close()
        await writer.wait_closed()

    async def storm() -> float:
        begin = asyncio.get_running_loop().time()
        await asyncio.gather(*(post_all() for _ in range(20)))
        return asyncio.get_running_loop().time() - begin

    seconds = asyncio.run(storm())
    assert (codes.count(202), codes.count(401)) == (1_000, 10_000)
    most = 5 + seconds * (1 + 1 / one.poll)
    """A burst, one wake a second, and the polls that come anyway."""
    assert one.polls() - polls <= most + 2
    assert process.memory_info().rss - before < 30 * 2**20
    assert one.live({"routes/shop/after-the-storm.yaml": web("after-the-storm", 8081)})


# --- rude clients ---------------------------------------------------------------------------------------------------


def test_thousands_of_slow_heads_keep_nobody_out(one: Installation) -> None:
    """2,000 connections that never finish their request hold nobody up, and are dropped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = []
    try:
        for _ in range(2000):
            slow = one.connect()
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            held.append(slow)
        assert one.client.get("/healthz").status_code == 200
        assert one.live({"routes/shop/slow.yaml": web("slow", 8081)})
        wait_for(lambda: all(_is_closed(each) for each in held), 25, what="the end of the slow connections")
    finally:
        for slow in held:
            slow.close()


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(4096) == b"" or _is_closed(connection)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def test_what_is_too_large_is_refused(one: Installation) -> None:
    """Giant headers and bodies are refused before they are read."""
    many = {f"X-{number}": "y" for number in range(100)}
    assert one.client.get("/healthz", headers=many).status_code == 431
    assert one.client.get("/healthz", headers={"X-Large": "y" * 20_000}).status_code == 431
    assert one.client.post("/api/v1/approvals", content=b" " * 70_000, headers=one.headers()).status_code == 413
    announced = {"Content-Length": str(2**40)}
    with one.connect() as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in announced.items())
        connection.sendall(f"POST /webhooks/git HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\n{head}\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_many_may_listen_and_more_are_told_to_come_back(one: Installation) -> None:
    """One caller may listen at 32 places; who would take more is told to wait, and gets in when one is left."""
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=one.url, verify=one.tls, timeout=20, trust_env=False, limits=limits) as many:
        streams = [many.send(many.build_request("GET", "/api/v1/stream", headers=one.headers("read")), stream=True)
                   for _ in range(40)]  # fmt: skip
        codes = [stream.status_code for stream in streams]
        for stream in streams:
            stream.close()
    assert (codes.count(200), codes.count(429)) == (32, 8)

    def all_left() -> bool:
        with one.client.stream("GET", "/api/v1/stream", headers=one.headers("read")) as stream:
            return stream.status_code == 200

    wait_for(all_left, 60, what="room for a listener")


def test_nothing_that_an_answer_says_is_lost_when_many_ask(one: Installation) -> None:
    """Fifty at once get the same answer."""
    answers: list[str] = []

    def ask() -> None:
        answers.append(one.client.get("/api/v1/state", headers=one.headers("read")).text)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert documents.DOMAIN in answers[0]
