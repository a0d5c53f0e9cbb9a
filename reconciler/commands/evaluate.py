"""Judge the files of a directory or of a revision the way the control plane will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.desired.locate import in_order, located
from reconciler.desired.news import FileNews, Gone
from reconciler.desired.plan import make_plan
from reconciler.desired.revoked import findings_of
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import Settled, settle
from reconciler.desired.state import State
from reconciler.desired.tree import Tree
from schemas.objects import key_of_path
from schemas.plan import Plan
from schemas.problem import Problem

# A bcrypt hash of nothing in particular, so that a route that asks for passwords compiles without the secret's key.
_ANY_HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every problem with its line, and the state that would go into service."""

    settled: Settled
    problems: tuple[Problem, ...]
    objects: int
    """Object files looked at."""

    @property
    def errors(self) -> int:
        return sum(problem.severity == "error" for problem in self.problems)


def judge(tree: Tree, base: State | None = None, *, revision: str = "") -> Verdict:
    """Settle ``tree`` on top of ``base``. Sealed secrets stay sealed: there is no key here, and none is needed."""
    base = State() if base is None else base
    news = _news(tree, base)
    settled = settle(base, revision, news, compile_route=compile_route, open_sealed=lambda _: _ANY_HTPASSWD)
    findings = findings_of(settled.state)
    problems = [problem for path, found in findings.items() for problem in located(path, _content(tree, path), found)]
    objects = sum(key_of_path(path) is not None for path in tree.files)
    return Verdict(settled, in_order(problems), objects)


def plan_between(base: State, tree: Tree) -> tuple[Plan, Verdict]:
    """Return what publishing ``tree`` on top of ``base`` would change."""
    verdict = judge(tree, base)
    return make_plan(base, verdict.settled, verdict.problems), verdict


def _news(tree: Tree, base: State) -> list[FileNews]:
    """List the files that differ from what is in service, and those that are gone."""
    in_service: Mapping[str, str] = {key.path: one.blob for key, one in base.served.items()}
    changed = [one for one in tree.news() if in_service.get(one.path) != getattr(one, "blob", None)]
    gone: list[FileNews] = [Gone(path) for path in in_service if path not in tree.files]
    return [*gone, *changed]


def _content(tree: Tree, path: str) -> bytes | None:
    file = tree.files.get(path)
    return tree.contents.get(file.blob) if file is not None else None
