"""The overview as a browser gets it."""

from __future__ import annotations

from pathlib import Path

from reconciler.steps.passing import Published
from reconciler.web.pages.overview import OverviewPage
from schemas.api import FrontStatus
from schemas.problem import Problem
from tests.unit.web.asking import WaxControl
from tests.unit.web.pages.visiting import Visit, text_of, visit


def parts(one: Visit) -> list[OverviewPage]:
    return [OverviewPage(site=one.site, control=one.asked.control, tracker=one.asked.tracker)]


def test_an_installation_without_anything_says_what_to_do_next(tmp_path: Path) -> None:
    """Before the first push there is a sentence in place of each list."""

    async def scenario(one: Visit) -> None:
        said = text_of(await one.get("/", "read"))
        assert "Nothing is published yet. Push a fleet file" in said
        assert "No revision was looked at yet." in said

    visit(tmp_path, parts, scenario)


def test_what_needs_a_person_stands_there_with_a_link(tmp_path: Path) -> None:
    """In order of urgency; who may only read sees the same."""
    problem = Problem(file="routes/shop/<b>.yaml", line=2, code="x", message="<img src=x onerror=alert(1)>")
    front = FrontStatus(name="front-1", file="f", message="no answer")
    control = WaxControl(kept_out=(problem,), front_states=(front,), published=Published(3, "a" * 40))

    async def scenario(one: Visit) -> None:
        one.asked.tracker.begin("b" * 40)
        one.asked.tracker.stop("b" * 40, "Held", "DeletionGuard", "deletes everything", approve="sha256:" + "0" * 64)
        answer = await one.get("/", "read")
        said = text_of(answer)
        assert "Generation 3, revision aaaaaaaaaa" in said
        assert "Revision bbbbbbbbbb waits for approval" in said
        assert "front-1 does not answer" in said
        assert 'href="/objects/routes/shop/%3Cb%3E.yaml#L2"' in answer.text
        assert "<img" not in answer.text
        assert 'aria-label="Stages: no stage was reached' in answer.text

    visit(tmp_path, parts, scenario, control)


def test_who_is_not_logged_in_sees_nothing(tmp_path: Path) -> None:
    """Nor does an agent."""

    async def scenario(one: Visit) -> None:
        assert (await one.stranger("/")).headers["location"] == "/login"
        assert (await one.send("GET", "/", one.asked.agent("GET", "/"))).status_code == 403

    visit(tmp_path, parts, scenario)
