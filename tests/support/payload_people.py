"""People whose names, reasons and messages are attacks, as an identity provider would let them in, and what they do."""

from __future__ import annotations

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from reconciler.access.sessions import hash_of
from reconciler.pki.authenticator import SESSION_COOKIE
from reconciler.store.sessions import Session
from reconciler.store.sqlite import SQLiteStore
from tests.support import documents
from tests.support.documents import DOMAIN
from tests.support.fleet import Installation
from tests.support.payload_files import AGENTS, CHANGED, COUNT, SPARE
from tests.support.payloads import MORE_PAYLOADS, Table
from tests.support.waiting import wait_for

FIELDS: Final = ("name", "full_name", "mail", "client")
OF_PROVIDER: Final = (*FIELDS, "issuer", "subject")
GONE: Final = SPARE[:2]
CORDONED: Final = SPARE[2:5]


class People:
    """``begin`` writes their sessions into the store, before ``serve`` reads it; person ``number`` has that payload."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.cookies: list[str] = []

    def begin(self, data: Path) -> None:
        """Let in an administrator for each payload, and somebody of a provider."""
        now = time.time()
        found = []
        for number in range(COUNT):
            for kind, fields in (("administrator", FIELDS), ("person of a provider", OF_PROVIDER)):
                said: dict[str, Any] = {one: self.table.put(kind, one, number) for one in fields}
                if kind == "administrator":
                    said["roles"] = ("administrator",)
                else:
                    said["groups"] = (self.table.put(kind, "groups", number),)
                secret = secrets.token_urlsafe(32)
                one = Session(secrets.token_hex(10), hash_of(secret), created_at=now, last_used_at=now,
                              expires_at=now + 3600, **said)  # fmt: skip
                found.append(one)
                if kind == "administrator":
                    self.cookies.append(f"{one.id}.{secret}")
        with ThreadPoolExecutor(1) as thread:  # a browser may have this one's loop
            thread.submit(asyncio.run, _save(data, found)).result()

    def headers(self, one: Installation, number: int) -> dict[str, str]:
        """What the browser of a person sends with a form or a script of ours."""
        return {"Cookie": f"{SESSION_COOKIE}={self.cookies[number]}", "Origin": one.url}

    # --- what they do ---------------------------------------------------------------------------------------------

    def act(self, one: Installation) -> None:
        """Give every reason, message and word that a person may give by the API."""
        for number in range(COUNT):
            agent = AGENTS[number]
            self._reason(one, number, f"/agents/{agent}/drain", "drain")
            words = [self.table.put("person", "exec", number)]
            said = {"command": words, "agent": agent, "seconds": 5}
            assert self._post(one, number, "/deployments/shop/web/exec", said).is_success
            archive = self.table.put("person", "restore", number)
            body = {"archive": archive, "confirm": "shop/orders", "agent": agent}
            assert self._post(one, number, "/deployments/shop/orders/restore", body).is_success
        for number, agent in enumerate(GONE):
            self._reason(one, number, f"/agents/{agent}/revocation", "revocation", quarantine=True)
        for number, agent in enumerate(CORDONED):
            message = self.table.put("person", "cordon", number)
            assert self._post(one, number + 2, f"/agents/{agent}/cordon", {"message": message}).is_success
        for number in range(COUNT):
            text = documents.route("changed", f"changed.app.{DOMAIN}", paths=[{"prefix": f"/{number}"}]).decode()
            message = self.table.put("person", "change", number, without="\n")
            said = {"edits": [{"path": CHANGED, "text": text}], "message": message}
            answer = self._post(one, number, "/changes", said)
            assert answer.is_success, answer.text
            if number % 5 == 0:
                revision = answer.json()["revision"]
                message = self.table.put("person", "revert", number)
                reverted = self._post(one, number, f"/revisions/{revision}/revert", {"message": message})
                assert reverted.is_success, reverted.text
        assert self._post(one, 1, "/deployments/shop/orders/rollout/pause", {}).is_success
        assert self._post(one, 2, "/tokens", {"kind": "ci", "scopes": ["read"], "name": "ci-1"}).is_success
        answer = one.client.put(
            "/api/v1/routes/shop/two/weights",
            json={"weights": {"vps-0:8081": 3}, "message": self.table.put("person", "weights", 0)},
            headers=self.headers(one, 0),
        )
        assert answer.is_success, answer.text

    def _post(self, one: Installation, number: int, path: str, body: dict[str, Any]) -> httpx.Response:
        return one.client.post(f"/api/v1{path}", json=body, headers=self.headers(one, number))

    def _reason(self, one: Installation, number: int, path: str, what: str, **more: Any) -> None:
        """Give a reason; one that is not a line of text is refused, and another tried that is."""
        if any(one < " " for one in MORE_PAYLOADS[number]):
            said = self.table.put("refused person", what, number)
            answer = self._post(one, number, path, {"reason": said, **more})
            assert answer.status_code == 422, answer.text
        said = self.table.put("person", what, number, without="\n\t\x1b\x07")
        answer = self._post(one, number, path, {"reason": said, **more})
        assert answer.is_success, answer.text


def webhook(one: Installation, sign: Any, table: Table) -> None:
    """Send a delivery that is full of it."""
    said = [*table.each("webhook", "body")]
    body = quote("".join(said)).encode()
    answer = one.client.post("/webhooks/git", content=body, headers={**sign(body), "X-GitHub-Delivery": said[0]})
    assert answer.status_code == 202, answer.text


async def _save(data: Path, sessions: list[Session]) -> None:
    store = await SQLiteStore.open(data)
    try:
        for one in sessions:
            await store.save_session(one)
    finally:
        await store.close()


def wait_for_words(one: Installation, number: int) -> None:
    """Wait until the control plane has heard the last agent."""
    wait_for(lambda: (one.agent(AGENTS[number]) or {}).get("message"), 60, what="the words of the last agent")
