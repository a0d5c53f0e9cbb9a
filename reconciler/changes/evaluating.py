"""What a change would do, judged as ``validate`` and ``plan`` judge it. Pure.

1. The state of the branch: what is in service, and what the branch holds beyond that.
2. The files as they would be, on top of it.
3. The errors that the second has and the first has not are what the change brings. What was wrong before, there or
   elsewhere, keeps nobody from mending something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.desired.finding import Finding
from reconciler.desired.locate import in_order, located
from reconciler.desired.news import FileNews
from reconciler.desired.plan import make_plan
from reconciler.desired.revoked import findings_of
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import Settled, settle
from reconciler.desired.snapshot import REGULAR_FILE, Change, File
from reconciler.desired.state import State
from reconciler.desired.tree import blob_id, news_of
from reconciler.desired.view import OpenSecret
from schemas.objects import AnyObject, ObjectKey, key_of_path
from schemas.plan import Plan
from schemas.problem import Problem

PLAIN_SECRET = "plain-secret"  # noqa: S105  the code of a problem
Found = Mapping[str, tuple[Finding, ...]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``told``: what is to be said of the files of the change, and what is new of others; of it ``blocking``."""

    before: State
    settled: Settled
    told: Found
    blocking: Found
    plain: Found
    """New suspicions that a secret stands in clear."""

    def object_at(self, path: str) -> AnyObject | None:
        """Return the newest object that a file holds after the change, in service or not."""
        return _newest(self.settled.state, path)

    def object_before(self, path: str) -> AnyObject | None:
        """Return the newest object that the file held before."""
        return _newest(self.before, path)


def _newest(state: State, path: str) -> AnyObject | None:
    key = key_of_path(path)
    if key is None:
        return None
    waiting, served = state.pending.get(key), state.served.get(key)
    return waiting.object if waiting is not None else served.object if served is not None else None


def state_ahead(
    published: State, revision: str, ahead: Sequence[Change], contents: Mapping[str, bytes], open_sealed: OpenSecret
) -> State:
    """Return what the branch says at ``revision``, which differs from what is in service by the files of ``ahead``."""
    return _settled(published, revision, news_of(ahead, contents), open_sealed).state if ahead else published


def evaluate(before: State, edits: Mapping[str, bytes | None], open_sealed: OpenSecret) -> Evaluation:
    """Judge a change of what the branch says. ``edits``: path → content, None for what is deleted."""
    made = {blob_id(content): content for content in edits.values() if content is not None}
    changes = [
        Change(path, None if content is None else File(REGULAR_FILE, blob_id(content)))
        for path, content in sorted(edits.items())
    ]
    settled = _settled(before, "", news_of(changes, made), open_sealed)
    old, new = findings_of(before), findings_of(settled.state)
    fresh = {path: _added(old.get(path, ()), found) for path, found in new.items()}
    return Evaluation(
        before,
        settled,
        told=_kept({path: new[path] if path in edits else fresh[path] for path in new}),
        blocking=_kept({path: _blocking(path, new[path], fresh[path], edits) for path in new}),
        plain=_kept({path: tuple(one for one in found if one.code == PLAIN_SECRET) for path, found in fresh.items()}),
    )


def plan_of(evaluation: Evaluation, problems: Sequence[Problem]) -> Plan | None:
    """Return what the change would do to what the branch says; None without a fleet file to judge by."""
    if evaluation.settled.state.fleet is None:
        return None
    return make_plan(evaluation.before, evaluation.settled, problems)


def problems_of(found: Found, contents: Mapping[str, bytes | None]) -> tuple[Problem, ...]:
    """Give findings their places; ``contents``: path → the file that they are of."""
    return in_order(problem for path, some in found.items() for problem in located(path, contents.get(path), some))


def blob_of(evaluation: Evaluation, path: str) -> str:
    """Return the blob that findings of a file which the change does not touch were made of."""
    state, key = evaluation.settled.state, key_of_path(path)
    served = state.served.get(key) if key is not None else None
    return state.blobs.get(path) or (served.blob if served is not None else "")


def _settled(base: State, revision: str, news: Sequence[FileNews], open_sealed: OpenSecret) -> Settled:
    return settle(base, revision, news, compile_route=compile_route, open_sealed=open_sealed)


def _blocking(
    path: str, found: tuple[Finding, ...], fresh: tuple[Finding, ...], edits: Mapping[str, bytes | None]
) -> tuple[Finding, ...]:
    """Return the errors that a change brings; a file of secrets may never hold anything but what is sealed."""
    is_secret = path in edits and path.startswith("secrets/")
    return tuple(one for one in (found if is_secret else fresh) if one.severity == "error")


def _added(old: Sequence[Finding], new: Sequence[Finding]) -> tuple[Finding, ...]:
    known = {(one.code, one.message) for one in old}
    return tuple(one for one in new if (one.code, one.message) not in known)


def _kept(found: Mapping[str, tuple[Finding, ...]]) -> Found:
    return {path: some for path, some in found.items() if some}


def subject_of(keys: Mapping[str, ObjectKey], actions: Mapping[str, str]) -> str:
    """Return what a commit without a message says: ``Change route shop/web``."""
    touched = [path for path in keys if actions[path] != "none"] or list(keys)
    verbs = {actions[path] for path in touched}
    verb = {"create": "Create", "delete": "Delete"}.get(next(iter(verbs)), "Change") if len(verbs) == 1 else "Change"
    names = [_words(keys[path]) for path in touched]
    return f"{verb} {names[0]}" if len(names) == 1 else f"{verb} {len(names)} objects, {names[0]} first"


def _words(key: ObjectKey) -> str:
    if key.kind == "Fleet":
        return "the fleet"
    return f"{key.kind.lower()} {'/'.join(filter(None, (key.team, key.name)))}"
