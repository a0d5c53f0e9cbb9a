"""What the API and the pages show of one object: what git wants, what is served, and what is seen of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Protocol

from reconciler.desired.claims import references_of
from reconciler.desired.parse import parse_file
from reconciler.desired.state import Served, State
from reconciler.desired.yaml_reader import Unreadable, read_mapping
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from schemas.api import AgentCondition
from schemas.changes_api import FileCommit, ObjectReference, ObjectView, ServedBy
from schemas.objects import AnyObject, ObjectKey
from schemas.problem import Problem

MOST: Final = 100
"""References and agents that are listed."""
ObjectState = Literal["InService", "LastGood", "Quarantined", "Pending", "Gone"]


class Control(Protocol):
    """What is needed of the running control plane."""

    @property
    def published(self) -> Published: ...
    def problems(self) -> tuple[Problem, ...]: ...
    def observations(self) -> dict[str, AgentObservation]: ...
    def connected(self) -> frozenset[str]: ...
    def conditions(self, names: Iterable[str]) -> dict[str, tuple[AgentCondition, ...]]: ...


def object_view(
    control: Control, key: ObjectKey, *, revision: str, blob: str, text: str | None, last: FileCommit | None
) -> ObjectView:
    """Put together how an object stands. ``blob`` and ``text`` are of the newest file, empty and None without one."""
    state, path = control.published.state, key.path
    served = state.served.get(key)
    problems = tuple(one for one in control.problems() if one.file == path)
    newest = _newest(key, blob, text)
    shown = newest if newest is not None else served.object if served is not None else None
    is_agent = key.kind == "Agent" and served is not None
    desired = _document(text)
    in_service = None if served is None else served.object.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return ObjectView(
        kind=key.kind,
        team=key.team,
        name=key.name or (shown.metadata.name if shown is not None else "fleet"),
        path=path,
        blob=blob,
        revision=revision,
        text=text,
        desired=desired,
        served=in_service if served is None or served.blob != blob else None,
        state=state_of(served, blob, problems),
        problems=problems,
        conditions=control.conditions([key.name])[key.name] if is_agent else (),
        observed=_observed(control, state, key, shown),
        references_out=_references(_named_by(key, shown)),
        references_in=_references(state.referrers.get(key, {})),
        last_change=last,
        links=_links(key),
    )


def state_of(served: Served | None, blob: str, problems: Iterable[Problem]) -> ObjectState:
    """Say in a word how an object stands; ``blob`` is of the newest file, empty without one."""
    if not blob:
        return "Gone"
    if served is not None and served.blob == blob and not served.retained:
        return "InService"
    if any(problem.severity == "error" for problem in problems):
        return "Quarantined" if served is None else "LastGood"
    return "LastGood" if served is not None and served.retained else "Pending"


def _newest(key: ObjectKey, blob: str, text: str | None) -> AnyObject | None:
    return None if text is None else parse_file(key.path, blob, text.encode(), key).object


def _document(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return read_mapping(text.encode())
    except Unreadable:
        return None


def _named_by(key: ObjectKey, shown: AnyObject | None) -> Iterable[ObjectKey]:
    return () if shown is None else dict.fromkeys(one.key for one in references_of(key, shown))


def _references(keys: Iterable[ObjectKey]) -> tuple[ObjectReference, ...]:
    found = sorted(keys)[:MOST]
    return tuple(ObjectReference(kind=one.kind, team=one.team, name=one.name, path=one.path) for one in found)


def _observed(control: Control, state: State, key: ObjectKey, shown: AnyObject | None) -> tuple[ServedBy, ...]:
    if shown is None or key.kind not in ("Deployment", "Route"):
        return ()
    seen, present = control.observations(), control.connected()
    names = state.view().agents_behind(key, shown)[:MOST]
    return tuple(_served_by(name, seen.get(name), str(key), name in present) for name in names)


def _served_by(agent: str, seen: AgentObservation | None, item: str, is_present: bool) -> ServedBy:
    said: Mapping[str, Any] = next((one for one in seen.items if one.get("id") == item), {}) if seen else {}
    message = str(said.get("message", "")) or ("" if is_present else "The agent is not connected.")
    return ServedBy(agent=agent, state=str(said.get("state", "")), message=message)


def _links(key: ObjectKey) -> dict[str, str]:
    base = "/api/v1"
    links = {"self": f"{base}/objects/{key.path}", "history": f"{base}/objects/{key.path}/history"}
    if key.kind == "Agent":
        links["agent"] = f"{base}/agents/{key.name}"
    elif key.kind == "Deployment":
        links["deployment"] = f"{base}/deployments/{key.team}/{key.name}"
    elif key.kind == "Route":
        links["weights"] = f"{base}/routes/{key.team}/{key.name}/weights"
    return links
