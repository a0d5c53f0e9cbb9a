"""The timeline as a browser gets it: what is searched, how one goes on, and that all of it is text."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from reconciler.store.protocols import Event
from reconciler.web.pages.events import PAGE, EventsPage, place_of
from tests.support.tokens import NOW
from tests.unit.web.pages.visiting import Visit, text_of, visit


def parts(one: Visit) -> list[EventsPage]:
    return [EventsPage(site=one.site, events=one.asked.store)]


async def happened(one: Visit, *events: Event) -> None:
    for event in events:
        await one.asked.store.append(event)


LOST = Event(NOW - 60, "AgentLost", "warning", "agent/vps-1", "vps-1 is silent")
APPROVED = Event(NOW - 30, "PlanApproved", "info", "plan/sha256:" + "a" * 64, "ann approved it", "c" * 40, "person:ann")
FAILED = Event(NOW - 5, "RevisionFailed", "error", "revision/" + "b" * 40, "vps-2 could not")


@pytest.mark.parametrize(("query", "types"), [
    ("", ["RevisionFailed", "PlanApproved", "AgentLost"]),
    ("severity=warning", ["RevisionFailed", "AgentLost"]),
    ("severity=error", ["RevisionFailed"]),
    ("q=APPROVED+ann", ["PlanApproved"]),
    ("type=AgentLost", ["AgentLost"]),
    ("subject=agent/", ["AgentLost"]),
    ("actor=person:ann", ["PlanApproved"]),
    ("since=2000-01-01&until=2000-01-02", []),
])  # fmt: skip
def test_the_form_says_what_is_shown(tmp_path: Path, query: str, types: list[str]) -> None:
    """Newest first, and what was asked for stays in the form."""

    async def scenario(one: Visit) -> None:
        await happened(one, LOST, APPROVED, FAILED)
        answer = await one.get(f"/events?{query}", "read")
        assert re.findall(r"<strong>([A-Za-z]+)</strong>", answer.text.partition('id="events"')[2]) == types
        assert ("Nothing that fits." in answer.text) is (types == [])

    visit(tmp_path, parts, scenario)


def test_as_many_words_are_searched_for_as_by_the_api(tmp_path: Path) -> None:
    """Each is looked for in every event there is, and nobody else is answered meanwhile."""

    async def scenario(one: Visit) -> None:
        await happened(one, LOST, APPROVED)
        answer = await one.get(f"/events?q={'+'.join(['ann'] * 8 + ['nowhere'])}", "read")
        assert "PlanApproved" in answer.text
        assert "The first 8 words are searched for." in answer.text

    visit(tmp_path, parts, scenario)


def test_one_goes_on_to_what_was_before(tmp_path: Path) -> None:
    """Page by page with the same search, until there is nothing before."""

    async def scenario(one: Visit) -> None:
        await happened(one, *(Event(NOW, "Tick", "info", "agent/a", f"number {number}") for number in range(PAGE + 2)))
        first = await one.get("/events?type=Tick", "read")
        assert f"number {PAGE + 1}" in first.text
        onward = re.search(r'rel="next" href="(/events\?type=Tick&amp;before=[0-9]+)"', first.text)
        assert onward is not None
        second = text_of(await one.get(html.unescape(onward[1]), "read"))
        assert "number 1 " in second
        assert "number 2 " not in second
        assert "Older" not in second

    visit(tmp_path, parts, scenario)


def test_what_is_said_is_text_and_leads_where_it_is_about(tmp_path: Path) -> None:
    """Agents and tenants have a say in subjects and messages."""
    odd = '"><script>alert(1)</script>\u202e'

    async def scenario(one: Visit) -> None:
        await happened(one, Event(NOW, odd, "info", f"agent/{odd}", odd, "", odd), APPROVED)
        answer = await one.get("/events", "read")
        assert "<script>alert" not in answer.text
        assert 'href="/agents/%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E%E2%80%AE"' in answer.text
        assert f'href="/revisions/{"c" * 40}"' in answer.text

    visit(tmp_path, parts, scenario)


def test_a_time_that_is_none_is_said_at_its_field(tmp_path: Path) -> None:
    """What is no query at all is refused."""

    async def scenario(one: Visit) -> None:
        answer = await one.get("/events?since=yesterday", "read")
        assert (answer.status_code, 'id="since-error"' in answer.text) == (200, True)
        assert (await one.get("/events?severity=loud", "read")).status_code == 400
        assert (await one.get("/events?before=x", "read")).status_code == 400

    visit(tmp_path, parts, scenario)


@pytest.mark.parametrize(("subject", "place"), [
    ("agent/vps-1", "/agents/vps-1"), ("Deployment/shop/web", "/deployments/shop/web"),
    ("Route/shop/web", "/objects/routes/shop/web.yaml"), ("certificate/apps", "/certificates/apps"),
    ("token/1", "/tokens"), ("plan/sha256:1", ""), ("nothing", ""), ("agent/../x", "/agents/..%2Fx"),
])  # fmt: skip
def test_a_subject_has_a_page(subject: str, place: str) -> None:
    """Where there is one."""
    assert place_of(subject) == place
