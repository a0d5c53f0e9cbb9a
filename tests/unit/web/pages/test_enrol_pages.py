"""Enrolling by a page: a name, a line that is shown once, and whether the agent has come."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from tests.support.fleet_pages import FleetPages, observed, run


def test_a_name_becomes_a_line_that_is_shown_once(tmp_path: Path) -> None:
    """The line has token, pin and fingerprint; the page is not to be kept, and its address has none of it."""

    async def scenario(pages: FleetPages) -> None:
        answer = await pages.post("/agents/new", {"name": "vps-9", "ttl": "5m"}, "enrol", "read")
        text = html.unescape(answer.text)
        token = text.partition("printf '%s\\n' \"")[2].partition('"')[0]
        stored = await pages.one.store.token(token.partition(".")[0])
        assert stored is not None
        assert (stored.agent, stored.created_by, stored.expires_at) == ("vps-9", "operator:ann", pages.one.now + 300)
        assert f"--pinnedpubkey sha256//cGlu {'https'}" in text
        assert f"--ca-sha256 {'ab' * 32} --name vps-9" in text
        assert "cloudlunacy agent enrol --server" in text
        assert answer.headers["cache-control"] == "no-store"
        assert token not in str(answer.headers)
        assert 'data-state="Waiting"' in text

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("name", "ttl", "said"),
    [("Vps 9", "5m", "lower-case letters"), ("", "5m", "lower-case letters"), ("vps-9", "1h", "15 minutes at most"),
     ("vps-1", "5m", "is enrolled already"), ('"><script>', "5m", "lower-case letters")],
)  # fmt: skip
def test_a_wrong_name_is_said_on_the_form(tmp_path: Path, name: str, ttl: str, said: str) -> None:
    """What was written stays in its field; no token is made."""

    async def scenario(pages: FleetPages) -> None:
        answer = await pages.post("/agents/new", {"name": name, "ttl": ttl})
        assert answer.status_code == 422
        assert said in answer.text
        assert f'value="{html.escape(name).replace("&quot;", "&#34;")}"' in answer.text
        assert "printf" not in answer.text

    run(tmp_path, scenario)


def test_a_declared_agent_is_offered(tmp_path: Path) -> None:
    """An agent whose file has no key yet is one to enrol."""

    async def scenario(pages: FleetPages) -> None:
        assert "Written before and not enrolled: vps-3." in (await pages.get("/agents/new")).text
        assert (await pages.post("/agents/new", {"name": "vps-3", "ttl": "15m"})).status_code == 200

    run(tmp_path, scenario)


def test_the_page_says_how_far_the_agent_is(tmp_path: Path) -> None:
    """Waited for, enrolled, connected."""

    async def scenario(pages: FleetPages) -> None:
        assert 'data-state="Waiting"' in (await pages.get("/agents/new/vps-9", "read")).text
        assert 'data-state="Enrolled"' in (await pages.get("/agents/new/vps-1", "read")).text
        pages.control.present, pages.control.seen = frozenset({"vps-1"}), {"vps-1": observed()}
        text = (await pages.get("/agents/new/vps-1", "read")).text
        assert 'data-state="Connected"' in text
        assert 'href="/agents/vps-1"' in text
        assert (await pages.get("/agents/new/%3Cscript%3E", "read")).status_code == 404

    run(tmp_path, scenario)


def test_only_who_may_enrol_gets_a_line(tmp_path: Path) -> None:
    """Operating is not enough."""

    async def scenario(pages: FleetPages) -> None:
        others = {"read", "plan", "approve", "operate", "exec", "write"}
        assert (await pages.get("/agents/new", *others)).status_code == 403
        assert (await pages.post("/agents/new", {"name": "vps-9", "ttl": "5m"}, *others)).status_code == 403

    run(tmp_path, scenario)
