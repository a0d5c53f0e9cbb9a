"""200 agents enrol, 50 at a time, against a commit and a push each with the git program.

Ours: real HTTP to a real ``serve`` in a process of its own, from the first request until every agent's answer says
that its commit is on the branch. Keys, tokens and proofs are made before. Theirs: what a script would do in a clone of
the same repository: write the file, ``git add``, ``git commit``, ``git push``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import httpx

from agent.keys import AgentKey
from bench.pairs import Row, timed
from bench.state_repo import BareRepo, git, tree
from reconciler.pki.operator_credential import OperatorCredential
from schemas.enrolment import ENROL_PATH, TOKENS_PATH

OBJECTS: Final = 1_000
AGENTS: Final = 200
AT_A_TIME: Final = 50
ROUNDS: Final = 3


def measure_enrolments(folder: Path) -> list[Row]:
    """Return the row."""
    ours, theirs, ratios, lost = [], [], [], 0
    remote = BareRepo(folder / "remote.git", tree(OBJECTS))
    clone = folder / "clone"
    git("clone", "--quiet", remote.path, clone)
    with subprocess.Popen(_serve(remote.path, folder / "data"), stderr=(folder / "log").open("wb")) as server:
        try:
            for number in range(ROUNDS):
                git("-C", clone, "pull", "--quiet")
                theirs.append(_one_by_one(clone, number))
                ours.append(asyncio.run(_enrol_all(folder / "data", folder / f"keys-{number}", number)))
                lost += AGENTS - _there(remote.path, f"vps-new-{number}-")
                ratios.append(theirs[-1] / ours[-1])
        finally:
            server.terminate()
            server.wait(30)
    middle = ROUNDS // 2
    return [
        Row(
            name=f"{AGENTS} enrolments, {AT_A_TIME} at a time, pushed to the remote",
            against="a git commit and push each",
            ours=round(sorted(ours)[middle] * 1e3, 1),
            reference=round(sorted(theirs)[middle] * 1e3, 1),
            unit="ms",
            ratio=round(sorted(ratios)[middle], 1) if not lost else 0.0,
            reach=20.0,
            sense="least",
            rounds=ROUNDS,
            notes=f"{lost} lost",
            details={"lost": lost},
        )
    ]


def _serve(remote: Path, data: Path) -> list[str]:
    program = [sys.executable, "-m", "reconciler", "serve"]
    where = ["--repo", str(remote), "--data", str(data), "--listen", "127.0.0.1:0", "--plain-http", "--poll", "1"]
    # the pace is there for the remote's sake; a burst lifts it, so that the work is measured and not the waiting
    return [*program, *where, "--push-burst", "1000"]


async def _enrol_all(data: Path, keys: Path, round_number: int) -> float:
    credential = await _credential(data)
    async with httpx.AsyncClient(base_url=credential.address, trust_env=False, timeout=60) as client:
        await _until_ready(client)
        requests = []
        for number in range(AGENTS):
            name, address = f"vps-new-{round_number}-{number}", f"10.{200 + round_number}.0.{number}"
            requests.append(_request(credential.address, await _body(client, credential, keys, name, address)))
    with timed() as watch:
        await asyncio.gather(*(_agents(credential.address, requests) for _ in range(AT_A_TIME)))
    return watch.seconds


def _request(address: str, body: dict[str, Any]) -> bytes:
    """Write the request out beforehand: what the clients take of the two cores would be missing to the server."""
    content = json.dumps(body).encode()
    host = address.removeprefix("http://")
    head = f"POST {ENROL_PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def _agents(address: str, waiting: list[bytes]) -> None:
    """Enrol one agent after the other, each over a connection of its own, until none waits."""
    host, port = address.removeprefix("http://").split(":")
    while waiting:
        request = waiting.pop()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        answer = await reader.read()
        writer.close()
        if not answer.startswith(b"HTTP/1.1 201 "):
            raise SystemExit(f"an enrolment was answered {answer[:400]!r}")


async def _credential(data: Path) -> OperatorCredential:
    while not (data / "credentials.json").exists():
        await asyncio.sleep(0.05)
    return OperatorCredential.load(data)


async def _until_ready(client: httpx.AsyncClient) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the control plane did not become ready")


async def _body(
    client: httpx.AsyncClient, credential: OperatorCredential, keys: Path, name: str, address: str
) -> dict[str, Any]:
    headers = credential.headers(time.time())
    answer = await client.post(TOKENS_PATH, json={"agent": name}, headers=headers)
    answer.raise_for_status()
    token = answer.json()
    (keys / name).mkdir(parents=True)
    key = AgentKey.load_or_create(keys / name)
    return {
        "token": token["token"],
        "name": name,
        "publicKey": key.public.model_dump(),
        "address": address,
        "capabilities": ["container"],
        "proof": key.enrolment_proof(token_id=token["id"], name=name, now=time.time()),
    }


def _one_by_one(clone: Path, round_number: int) -> float:
    """Commit and push one file each."""
    with timed() as watch:
        for number in range(AGENTS):
            name, address = f"vps-plain-{round_number}-{number}", f"10.{100 + round_number}.0.{number}"
            path = f"agents/{name}.yaml"
            text = (
                f"apiVersion: cloudlunacy/v1\nkind: Agent\nmetadata:\n  name: {name}\n"
                f"spec:\n  address: {address}\n  capabilities: [container]\n"
            )
            (clone / path).write_text(text, encoding="utf-8")
            git("-C", clone, "add", path)
            git("-C", clone, "commit", "--quiet", "-m", f"Enrol {name}")
            git("-C", clone, "push", "--quiet", "origin", "HEAD:main")
    return watch.seconds


def _there(remote: Path, prefix: str) -> int:
    listed = git("-C", remote, "ls-tree", "--name-only", "main", "agents/")
    return sum(path.startswith(f"agents/{prefix}") for path in listed.split("\n"))
