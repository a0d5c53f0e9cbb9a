"""What needs a person, most urgent first. PURE: it is told how everything stands, and says what somebody should do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from reconciler.store.protocols import AgentObservation
from reconciler.web.pages.words import segment, within
from schemas.agent import Agent
from schemas.api import FrontStatus
from schemas.certificate_status import CertificateStatus
from schemas.problem import Problem
from schemas.rotation_api import RotationView
from schemas.status import RevisionStatus

Urgency = Literal["error", "warning", "info"]
SOON: Final = timedelta(days=14)
"""A certificate that ends within this time and has not been replaced is worth a look."""
SHOWN: Final = 8
"""Of one sort; the rest is a number with a link."""
_RANK: Final[Mapping[Urgency, int]] = {"error": 0, "warning": 1, "info": 2}

_NEWEST: Final = "newest revision"


@dataclass(frozen=True, slots=True)
class Need:
    """One thing: what, why and what to do; ``href`` leads to where that is done.

    ``type`` and ``subject`` are what it is known by, however its words change (docs/notifications.md).
    """

    urgency: Urgency
    type: str
    subject: str
    title: str
    text: str = ""
    href: str = "/"
    action: str = "Look"
    since: datetime | None = None
    team: str = ""
    """Whose it is; empty: the fleet's."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How everything stands."""

    now: datetime
    ready: bool = True
    generation: int = 0
    newest: RevisionStatus | None = None
    problems: Sequence[Problem] = ()
    agents: Mapping[str, Agent] = field(default_factory=dict)
    connected: frozenset[str] = frozenset()
    seen: Mapping[str, AgentObservation] = field(default_factory=dict)
    certificates: Sequence[CertificateStatus] = ()
    fronts: Sequence[FrontStatus] = ()
    rotations: Sequence[RotationView] = ()


def needs(standing: Standing, *, shown: int = SHOWN) -> tuple[Need, ...]:
    """Return what needs a person; empty where nothing does. Of one sort at most ``shown``."""
    found = [
        *_of_start(standing),
        *_of_revision(standing.newest),
        *_of_fronts(standing),
        *_some(_of_problems(standing.problems), shown, "more problems", "/revisions/newest#problems"),
        *_some(_of_work(standing), shown, "more deployments that fail", "/deployments"),
        *_some(_of_agents(standing), shown, "more agents that are away", "/agents"),
        *_some(_of_certificates(standing), shown, "more certificates", "/certificates"),
        *_of_rotations(standing.rotations),
    ]
    return tuple(sorted(found, key=lambda one: _RANK[one.urgency]))


def _some(found: Iterable[Need], shown: int, more: str, href: str) -> Iterator[Need]:
    every = list(found)
    yield from every[:shown]
    if len(every) > shown:
        yield Need(every[shown].urgency, "More", href, f"{len(every) - shown} {more}", href=href, action="See all")


def _of_start(standing: Standing) -> Iterator[Need]:
    if not standing.ready:
        text = "Until it has, what is in service stays as it was. Its log says what stands in the way."
        yield Need(
            "warning",
            "RemoteAway",
            "remote",
            "The control plane has not reached the remote yet",
            text,
            "/events",
            "Timeline",
        )


def _of_revision(newest: RevisionStatus | None) -> Iterator[Need]:
    if newest is None:
        return
    href, name = f"/revisions/{newest.revision}", newest.revision[:10]
    since = max((at for at in newest.stages.values() if at is not None), default=None)
    if newest.state == "Held" and newest.approve:
        yield Need(
            "error",
            "RevisionHeld",
            _NEWEST,
            f"Revision {name} waits for approval",
            newest.message,
            href,
            "Look and approve",
            since,
        )
    elif newest.state == "Held":
        yield Need("error", "RevisionHeld", _NEWEST, f"Revision {name} is held", newest.message, href, "See why", since)
    elif newest.state == "Failed":
        yield Need(
            "error", "RevisionFailed", _NEWEST, f"Revision {name} failed", newest.message, href, "See why", since
        )
    for deployment, rollout in newest.rollouts.items():
        if rollout.state in ("Failed", "Paused"):
            urgency: Urgency = "error" if rollout.state == "Failed" else "warning"
            title = f"The roll-out of {deployment} {'failed' if rollout.state == 'Failed' else 'is paused'}"
            yield _of_deployment(
                f"Rollout{rollout.state}", deployment, urgency, title, rollout.message, since=rollout.begun
            )


def _of_fronts(standing: Standing) -> Iterator[Need]:
    for front in standing.fronts:
        if front.loaded_generation is None:
            text = front.message or "Its API does not answer."
            yield Need(
                "error",
                "FrontAway",
                f"front/{front.name}",
                f"{front.name} does not answer",
                text,
                "/traffic",
                "Traffic",
            )
        elif standing.generation and front.loaded_generation != standing.generation:
            text = f"It serves generation {front.loaded_generation}, and {standing.generation} is published."
            yield Need(
                "warning",
                "FrontBehind",
                f"front/{front.name}",
                f"{front.name} serves an older generation",
                text,
                "/traffic",
                "Traffic",
            )


def _of_problems(problems: Sequence[Problem]) -> Iterator[Need]:
    for one in problems:
        if one.severity == "error":
            text = f"{one.message} {one.hint}".strip()
            href = f"/objects/{within(one.file)}#L{one.line}"
            title = f"{one.file}:{one.line} is kept out"
            team = one.file.split("/")[1] if one.file.count("/") == 2 else ""
            yield Need("error", "ObjectRefused", one.file, title, text, href, "Mend it", team=team)


def _of_work(standing: Standing) -> Iterator[Need]:
    failing: dict[str, tuple[str, str]] = {}
    for name in standing.agents:
        seen = standing.seen.get(name)
        for item in seen.items if seen is not None and name in standing.connected else ():
            if item.get("state") == "Failed" and str(item.get("id", "")).startswith("Deployment/"):
                said = str(item.get("message", "")) or str(item.get("reason", ""))
                failing.setdefault(str(item["id"]).partition("/")[2], (name, said))
    for deployment, (agent, said) in failing.items():
        yield _of_deployment("DeploymentFailing", deployment, "error", f"{deployment} does not run on {agent}", said)


def _of_agents(standing: Standing) -> Iterator[Need]:
    away: list[tuple[float, Need]] = []
    for name, agent in standing.agents.items():
        if agent.spec.state != "active" or name in standing.connected:
            continue
        href, subject, seen = f"/agents/{segment(name)}", f"agent/{name}", standing.seen.get(name)
        if agent.spec.identity is None:
            text = "Its file is there, and no machine has enrolled as it yet."
            away.append(
                (0.0, Need("info", "AgentNotEnrolled", subject, f"{name} has not enrolled", text, href, "Enrol it"))
            )
        elif seen is None:
            away.append(
                (0.0, Need("warning", "AgentAway", subject, f"{name} is away", "It was never connected.", href))
            )
        else:
            when = datetime.fromtimestamp(seen.last_seen, standing.now.tzinfo)
            text = "What it runs goes on without us; changes wait for it."
            away.append(
                (-seen.last_seen, Need("warning", "AgentAway", subject, f"{name} is away", text, href, since=when))
            )
    yield from (need for _, need in sorted(away, key=lambda one: one[0]))


def _of_certificates(standing: Standing) -> Iterator[Need]:
    for one in standing.certificates:
        href, subject = f"/certificates/{segment(one.name)}", f"certificate/{one.name}"
        if one.state == "Expired":
            yield Need(
                "error",
                "CertificateExpired",
                subject,
                f"Certificate {one.name} has expired",
                one.message,
                href,
                since=one.not_after,
            )
        elif one.not_after is not None and one.not_after - standing.now < SOON and one.message:
            yield Need("warning", "CertificateEnding", subject, f"Certificate {one.name} ends soon", one.message, href)
        elif one.state == "Pending" and one.message:
            yield Need(
                "warning", "CertificatePending", subject, f"Certificate {one.name} is not there yet", one.message, href
            )


def _of_rotations(rotations: Sequence[RotationView]) -> Iterator[Need]:
    for one in rotations:
        if one.waits_for and (one.subject == "age" or one.phase == "prepare"):
            title = f"The authority waits: {one.subject} key, phase {one.phase}"
            yield Need(
                "warning",
                "AuthorityWaits",
                f"rotation/{one.subject}",
                title,
                one.waits_for,
                "/certificates",
                since=one.since,
            )


def _of_deployment(
    kind: str, deployment: str, urgency: Urgency, title: str, text: str, *, since: datetime | None = None
) -> Need:
    href, subject = f"/deployments/{within(deployment)}", f"Deployment/{deployment}"
    return Need(urgency, kind, subject, title, text, href, since=since, team=deployment.partition("/")[0])
