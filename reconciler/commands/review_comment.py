"""What stands under a pull request: checks and plan, as one comment that is found again by a marker. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from reconciler.commands.plan_formats import markdown_lines, problem_lines
from reconciler.forges.markdown import code, fitting
from schemas.plan import Plan
from schemas.problem import Problem

MARKER: Final = "[cloudlunacy:plan]: https://cloudlunacy.invalid/plan"
"""A link reference that nothing refers to: every forge keeps it and shows nothing. An HTML comment would do so at all
but Bitbucket, which shows it."""
MOST: Final = 60_000
"""Characters, also where a forge takes more: nobody reads further."""
_CUT: Final = "*The rest is cut: there was no room for it. The run's files have the whole plan (plan.md).*"
_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What validate and plan found. ``plan`` is None where there is none to be made, and ``failure`` says why."""

    problems: tuple[Problem, ...]
    objects: int
    plan: Plan | None = None
    failure: str = ""

    @property
    def errors(self) -> int:
        return sum(problem.severity == "error" for problem in self.problems)


def comment_of(reviewed: Reviewed, *, revision: str = "", page: str = "", html: bool = True, limit: int = MOST) -> str:
    """Return the comment, no longer than ``limit`` characters.

    Args:
        reviewed: what was found.
        revision: of the commit that was looked at.
        page: URL of the run of CI, from its own variables.
        html: the forge folds parts with ``<details>``.
        limit: characters of a comment at the forge.
    """
    tail = "\n".join(["", "", _source(revision, page), "", MARKER])
    lines = list(report_lines(reviewed, html=html))
    return fitting(lines, min(limit, MOST) - len(tail), _CUT) + tail


def report_of(reviewed: Reviewed) -> str:
    """Return all of it, for the page of the run and for plan.md."""
    return "\n".join(report_lines(reviewed)) + "\n"


def report_lines(reviewed: Reviewed, *, html: bool = True) -> Iterator[str]:
    """Yield checks and plan; the problems are those of the whole tree."""
    if reviewed.plan is not None:
        yield from markdown_lines(reviewed.plan, html=html, problems=reviewed.problems)
    else:
        yield "### CloudLunacy plan"
        yield ""
        yield f"There is no plan: {code(reviewed.failure)}." if reviewed.failure else "There is no plan for this run."
        yield from problem_lines(reviewed.problems, html=html)
    yield ""
    yield f"**Checks**: {_checks(reviewed)}"


def _checks(reviewed: Reviewed) -> str:
    warnings = len(reviewed.problems) - reviewed.errors
    found = [_count(reviewed.errors, "error")] if reviewed.errors else []
    found += [_count(warnings, "warning")] if warnings else []
    sign = "❌" if reviewed.errors or reviewed.failure else "✅"
    return f"{sign} {_count(reviewed.objects, 'object')}, {' and '.join(found) or 'no problems'}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _source(revision: str, page: str) -> str:
    commit = f"For commit {code(revision[:_DIGITS])}" if revision else "By hand"
    return f"{commit}, by [this run]({page})." if _is_plain(page) else f"{commit}."


def _is_plain(page: str) -> bool:
    """A URL that ends nothing in Markdown."""
    is_web = page.startswith(("https://", "http://"))
    return is_web and not any(one in page for one in "()<>[]`\\ \"'") and page.isprintable()


def read_reviewed(problems: Sequence[Problem], objects: int, plan: Plan | None) -> Reviewed:
    """Return what an earlier run wrote into files."""
    failure = "" if plan is not None else "the run that was to make it wrote none"
    return Reviewed(tuple(problems), objects, plan, failure)
