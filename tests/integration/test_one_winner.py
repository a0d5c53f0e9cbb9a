"""Two uses of one enrolment token at once, a hundred times, on the real ``serve`` with a real git remote (row 10)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import httpx
import yaml_rs
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import documents
from tests.support.fleet import Installation, installation
from tests.support.git_repos import git
from tests.support.tokens import jwk, jws, new_key, thumbprint

TIMES: Final = 100
AT_ONCE: Final = 10
"""Tokens that are fought for at the same time."""

REFUSALS: Final = {(403, "token-spent"), (409, "identity-exists")}
"""The second where the winner was in service already when the loser was looked at."""


def request(key: ec.EllipticCurvePrivateKey, token: str, name: str, number: int) -> dict[str, Any]:
    claims = {"token": token.partition(".")[0], "name": name, "iat": int(time.time()), "jti": f"{time.monotonic_ns()}"}
    proof = jws(key, {"alg": "ES256", "typ": "cloudlunacy-enrolment+jwt"}, claims)
    address = f"127.0.{number // 200}.{number % 200 + 1}"
    return {"token": token, "name": name, "publicKey": jwk(key), "proof": proof, "address": address}


async def fight(client: httpx.AsyncClient, token: str, name: str, number: int) -> tuple[str, list[httpx.Response]]:
    """Let two keys use one token at once; return the winner's thumbprint, and what both were answered."""
    keys = [new_key(), new_key()]
    bodies = [request(key, token, name, number) for key in keys]
    answers = await asyncio.gather(*(client.post("/api/v1/agents/enrol", json=body) for body in bodies))
    won = [index for index, answer in enumerate(answers) if answer.is_success]
    assert len(won) == 1, [answer.text for answer in answers]
    lost = answers[1 - won[0]]
    assert (lost.status_code, lost.json()["type"].rpartition(":")[2]) in REFUSALS
    again = await client.post("/api/v1/agents/enrol", json=request(keys[won[0]], token, name, number))
    assert again.json()["thumbprint"] == thumbprint(keys[won[0]])
    return thumbprint(keys[won[0]]), [answers[won[0]], again]


async def fights(one: Installation, tokens: dict[str, str]) -> dict[str, tuple[str, list[httpx.Response]]]:
    turns = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=one.url, verify=one.tls, trust_env=False, timeout=60) as client:

        async def turn(name: str, number: int) -> tuple[str, tuple[str, list[httpx.Response]]]:
            async with turns:
                return name, await fight(client, tokens[name], name, number)

        return dict(await asyncio.gather(*(turn(name, number) for number, name in enumerate(tokens))))


def test_of_two_uses_of_one_token_one_wins_a_hundred_times(tmp_path: Path) -> None:
    """One key is committed for each token, the other is refused, and asking again changes nothing."""
    files = {"fleet.yaml": documents.fleet(registration={"mode": "commit", "agentsPerHour": 1000})}
    with installation(tmp_path / "one", files, traefik=False) as one:
        tokens = {name: one.token(name) for name in (f"vps-{number}" for number in range(TIMES))}
        winners = asyncio.run(fights(one, tokens))
        assert len(winners) == TIMES
        revisions = set()
        for name, (won, answers) in winners.items():
            states = [(answer.status_code, answer.json()["state"]) for answer in answers]
            assert states == [(201, "committed")] * 2, states
            revisions.add(answers[0].json()["revision"])
            assert answers[0].json()["revision"] == answers[1].json()["revision"]
            file: Any = yaml_rs.loads(one.repo.show(f"agents/{name}.yaml"))
            assert file["spec"]["identity"]["thumbprint"] == won
        assert len(revisions) == TIMES
        log = git("-C", one.repo.path, "log", "--format=%H %(trailers:key=CloudLunacy-Thumbprint,valueonly)", "main")
        committed = {line.split()[1] for line in log.splitlines() if len(line.split()) == 2}
        assert committed == {won for won, _ in winners.values()}
        assert int(git("-C", one.repo.path, "rev-list", "--count", "main")) == TIMES + 1
