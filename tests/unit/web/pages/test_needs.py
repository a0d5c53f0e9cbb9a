"""What needs a person: each thing that may, and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.store.protocols import AgentObservation
from reconciler.web.pages.needs import SHOWN, Need, Standing, needs
from schemas.agent import Agent
from schemas.api import FrontStatus
from schemas.certificate_status import CertificateStatus
from schemas.problem import Problem
from schemas.rotation_api import RotationView
from schemas.status import STAGES, RevisionStatus

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
WELL = Standing(now=NOW, generation=3)
CHECKSUM = "sha256:" + "a" * 64


def agent(name: str, *, enrolled: bool = True, state: str = "active") -> Agent:
    identity = {"identity": {"thumbprint": "A" * 43}} if enrolled else {}
    return Agent.model_validate(
        {"apiVersion": "cloudlunacy/v1", "kind": "Agent", "metadata": {"name": name},
         "spec": {"address": "127.0.0.1", "state": state, **identity}}
    )  # fmt: skip


def seen(name: str, *, ago: float = 60.0, items: tuple[dict[str, Any], ...] = ()) -> AgentObservation:
    return AgentObservation(name, False, NOW.timestamp() - ago, 1, None, "1", "applied", "", items, {})


def revision(state: str, **more: Any) -> RevisionStatus:
    stages = dict.fromkeys(STAGES) | {"fetched": NOW}
    return RevisionStatus.model_validate({"revision": "abc" * 13 + "a", "state": state, "stages": stages, **more})


def certificate(**more: Any) -> CertificateStatus:
    return CertificateStatus.model_validate(
        {"name": "apps", "issuer": "acme", "dnsNames": ["a.test"], "state": "Good", **more}
    )


def only(standing: Standing) -> Need:
    (found,) = needs(standing)
    return found


def test_nothing_needs_anybody_where_all_is_well() -> None:
    """Converged, connected, loaded, good for long; who is cordoned on purpose is no news."""
    standing = replace(
        WELL,
        newest=revision("Converged"),
        agents={"vps-1": agent("vps-1"), "vps-2": agent("vps-2", state="cordoned")},
        connected=frozenset({"vps-1"}),
        seen={"vps-1": seen("vps-1")},
        certificates=[certificate(notAfter=NOW + timedelta(days=60)), certificate(notAfter=NOW + timedelta(days=1))],
        fronts=[FrontStatus(name="front-1", file="f", loaded_generation=3)],
    )
    assert needs(standing) == ()


def test_a_held_revision_leads_to_where_it_is_approved() -> None:
    """And one that nobody can approve to why."""
    held = only(replace(WELL, newest=revision("Held", message="deletes all", approve=CHECKSUM)))
    assert (held.urgency, held.text, held.href) == ("error", "deletes all", f"/revisions/{'abc' * 13}a")
    assert held.action == "Look and approve"
    assert only(replace(WELL, newest=revision("Held", message="unsigned"))).action == "See why"


@pytest.mark.parametrize(("state", "urgency"), [("Failed", "error"), ("Paused", "warning")])
def test_a_roll_out_that_stopped_leads_to_its_deployment(state: str, urgency: str) -> None:
    """With what was said of it."""
    rollout = {"state": state, "message": "vps-1 failed", "begun": NOW}
    found = only(replace(WELL, newest=revision("Progressing", rollouts={"shop/web": rollout})))
    assert (found.urgency, found.href, found.text) == (urgency, "/deployments/shop/web", "vps-1 failed")


def test_a_file_that_is_kept_out_leads_to_its_line() -> None:
    """A warning keeps nothing out."""
    problem = Problem(file="routes/shop/web.yaml", line=13, code="unknown-agent", message="no such agent", hint="Add.")
    found = only(replace(WELL, problems=[problem, problem.model_copy(update={"severity": "warning"})]))
    assert (found.title, found.href) == ("routes/shop/web.yaml:13 is kept out", "/objects/routes/shop/web.yaml#L13")
    assert found.text == "no such agent Add."


def test_an_agent_that_is_away_is_named_the_longest_gone_last() -> None:
    """Who never came is asked to enrol; that is no alarm."""
    agents = {name: agent(name, enrolled=name != "vps-3") for name in ("vps-1", "vps-2", "vps-3")}
    standing = replace(WELL, agents=agents, seen={"vps-1": seen("vps-1", ago=900), "vps-2": seen("vps-2", ago=5)})
    assert [(one.urgency, one.title) for one in needs(standing)] == [
        ("warning", "vps-2 is away"), ("warning", "vps-1 is away"), ("info", "vps-3 has not enrolled"),
    ]  # fmt: skip


def test_many_of_a_sort_become_a_number() -> None:
    """A page is not as long as a fleet is large."""
    agents = {f"vps-{number}": agent(f"vps-{number}") for number in range(500)}
    found = needs(replace(WELL, agents=agents))
    assert (len(found), found[-1].title) == (SHOWN + 1, f"{500 - SHOWN} more agents that are away")


def test_work_that_fails_is_told_once_and_only_of_who_is_there() -> None:
    """What an agent said before it went says nothing of now."""
    failed = {"id": "Deployment/shop/web", "state": "Failed", "reason": "ImagePull", "message": "no such image"}
    agents = {"vps-1": agent("vps-1"), "vps-2": agent("vps-2")}
    told = {"vps-1": seen("vps-1", items=(failed,)), "vps-2": seen("vps-2", items=(failed,))}
    both = replace(WELL, agents=agents, seen=told, connected=frozenset(agents))
    assert [one.title for one in needs(both)] == ["shop/web does not run on vps-1"]
    assert only(both).text == "no such image"
    away = needs(replace(both, connected=frozenset()))
    assert not any("does not run" in one.title for one in away)


@pytest.mark.parametrize(("more", "title", "urgency"), [
    ({"state": "Expired", "message": "gone"}, "Certificate apps has expired", "error"),
    ({"state": "Due", "message": "the server said no", "notAfter": NOW + timedelta(days=3)},
     "Certificate apps ends soon", "warning"),
    ({"state": "Pending", "message": "the name does not resolve"}, "Certificate apps is not there yet", "warning"),
])  # fmt: skip
def test_a_certificate_that_does_not_come_by_itself(more: dict[str, Any], title: str, urgency: str) -> None:
    """Is named before clients notice."""
    found = only(replace(WELL, certificates=[certificate(**more)]))
    assert (found.title, found.urgency, found.href) == (title, urgency, "/certificates/apps")


def test_fronts_that_do_not_answer_or_lag() -> None:
    """With what each says."""
    fronts = [FrontStatus(name="front-1", file="f", message="refused"),
              FrontStatus(name="front-2", file="f", loaded_generation=2)]  # fmt: skip
    found = needs(replace(WELL, fronts=fronts))
    assert [one.title for one in found] == ["front-1 does not answer", "front-2 serves an older generation"]


def test_the_authority_waits_for_a_person_alone() -> None:
    """A phase that time brings forward is not told."""
    rotation = RotationView(subject="root", phase="prepare", begun=NOW, since=NOW, tainted=False, actor="",
                            waits_for="Bring the root's key.")  # fmt: skip
    later = rotation.model_copy(update={"phase": "wait"})
    assert only(replace(WELL, rotations=[rotation, later])).text == "Bring the root's key."
    assert only(replace(WELL, ready=False)).title == "The control plane has not reached the remote yet"
