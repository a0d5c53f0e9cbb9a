"""``cloudlunacy review``: validate and plan for a pull request, as one comment that is updated.

1. Check every object; each problem becomes an annotation at its line where the forge has them.
2. Make the plan against the base of the pull request.
3. Write it into the page of the run (GitHub, Gitea), and with ``--out`` into files.
4. Put it under the pull request, where this run was given a token that may write. A run for a fork never is: then the
   page of the run has the plan, and ``--from`` posts it from a run that nobody outside can change.

The exit code is that of the checks, 0 with ``--from``. A comment that cannot be posted is a warning: it must keep
nobody from merging.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from reconciler.commands.evaluate import judge, plan_between
from reconciler.commands.output import say, tell
from reconciler.commands.plan_formats import format_plan, summary
from reconciler.commands.problem_formats import format_problems, summarise
from reconciler.commands.review_comment import MARKER, Reviewed, comment_of, read_reviewed, report_of
from reconciler.commands.revisions import tree_of_revision
from reconciler.commands.tree import Tree, read_directory
from reconciler.errors import Broken, CloudLunacyError, Transient
from reconciler.forges.ci import TOKEN, Run, run_of
from reconciler.forges.connection import Access, require_token
from reconciler.forges.forge import Place, put_comment
from reconciler.forges.opening import open_forge
from schemas.plan import Plan
from schemas.problem import Problem

MOST_BYTES: Final = 32 * 2**20
"""Of a file that another run wrote."""
TRIES: Final = 3
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 60.0
_PROBLEMS: Final = TypeAdapter(tuple[Problem, ...])
_PROBLEMS_FILE, _PLAN_FILE = "problems.json", "plan.json"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "review",
        help="check and plan a pull request in CI",
        description="Check a state repo, make the plan against a revision, and put both under the pull request that "
        "this run of CI is for: GitHub Actions, GitLab CI, Gitea and Forgejo Actions, Bitbucket Pipelines. Exit code 1 "
        "where an error was found.",
        epilog=f"environment:\n  {TOKEN}\n      token that may comment; without it nothing is posted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, default=Path(), metavar="DIR", help="state repo (default: .)"
    )
    parser.add_argument("--base", default="", metavar="REV", help="compare with it (default: the pull request's base)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write problems.json, plan.json, plan.md, validate.xml")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="DIR", help="check nothing; post what --out wrote there"
    )
    parser.add_argument("--number", type=int, metavar="N", help="the pull request (default: that of this run)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Review, or post a review."""
    about = run_of(os.environ, _event(os.environ))
    if options.source is not None:
        _post(_read(options.source), about, options.number or about.number, os.environ.get(TOKEN, ""))
        return 0
    reviewed = _review(options.directory, options.base or about.base)
    _annotate(reviewed, about)
    if options.out is not None:
        _write(options.out, reviewed)
    _summarise(reviewed, about)
    _post(reviewed, about, options.number or about.number, os.environ.get(TOKEN, ""))
    return 1 if reviewed.errors or reviewed.failure else 0


# --- finding out ------------------------------------------------------------------------------------------------------


def _review(directory: Path, base: str) -> Reviewed:
    tree = read_directory(directory)
    verdict = judge(tree)
    if not base:
        return Reviewed(verdict.problems, verdict.objects)
    try:
        return Reviewed(verdict.problems, verdict.objects, _plan(tree, base, directory))
    except CloudLunacyError as error:
        return Reviewed(verdict.problems, verdict.objects, failure=str(error))


def _plan(tree: Tree, base: str, directory: Path) -> Plan:
    revision, before = tree_of_revision(base, directory)
    plan, verdict = plan_between(judge(before, revision=revision).settled.state, tree)
    if verdict.settled.state.fleet is None:
        raise Broken("there is no fleet.yaml that could go into service.")
    return plan


def _annotate(reviewed: Reviewed, about: Run) -> None:
    text = format_problems(reviewed.problems, reviewed.objects, about.annotations)
    if text:
        say(text)
    tell(summarise(reviewed.problems, reviewed.objects).rstrip())
    tell(
        f"No plan: {reviewed.failure}" if reviewed.failure else summary(reviewed.plan) if reviewed.plan else "No plan."
    )


# --- files ------------------------------------------------------------------------------------------------------------


def _write(folder: Path, reviewed: Reviewed) -> None:
    """Write what others read. In the working directory lies what the pull request wrote: no link there is followed.

    Raises:
        Broken: a part of the folder's path is a link.
    """
    if not folder.is_absolute() and any(one.is_symlink() for one in (folder, *folder.parents)):
        raise Broken(f"{folder} is a link, or lies behind one.", hint="Name a folder of the checkout with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        _PROBLEMS_FILE: format_problems(reviewed.problems, reviewed.objects, "json"),
        "validate.xml": format_problems(reviewed.problems, reviewed.objects, "junit"),
        "plan.md": report_of(reviewed),
    }
    if reviewed.plan is not None:
        files[_PLAN_FILE] = format_plan(reviewed.plan, "json")
    for name, text in files.items():
        _write_anew(folder / name, text)


def _write_anew(path: Path, text: str) -> None:
    """Put a new file in the place of whatever is there.

    Raises:
        Broken: it cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise Broken(f"{path} cannot be written: {error.strerror}.") from None


def _read(folder: Path) -> Reviewed:
    """Read what another run wrote: data, of which nothing is run or shown as it is.

    Raises:
        Broken: it is not what a review writes.
    """
    said = _load(folder / _PROBLEMS_FILE)
    try:
        problems = _PROBLEMS.validate_python(said["problems"])
        objects = int(said["objects"])
        plan = Plan.model_validate(_load(folder / _PLAN_FILE)) if (folder / _PLAN_FILE).exists() else None
    except (ValidationError, ValueError, KeyError, TypeError):
        raise Broken(f"{folder} does not hold what cloudlunacy review --out writes.") from None
    return read_reviewed(problems, objects, plan)


def _load(path: Path) -> Any:  # noqa: ANN401 - JSON
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    try:
        return json.loads(content if len(content) <= MOST_BYTES else b"")
    except (ValueError, RecursionError):
        raise Broken(f"{path} does not hold what cloudlunacy review --out writes.") from None


def _event(environment: Mapping[str, str]) -> bytes:
    path = environment.get("GITHUB_EVENT_PATH")
    if not path:
        return b""
    with Path(path).open("rb") as file:
        return file.read(MOST_BYTES)


def _summarise(reviewed: Reviewed, about: Run) -> None:
    if about.summary:
        with Path(about.summary).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(comment_of(reviewed, revision=about.revision, limit=900_000).replace(MARKER, "") + "\n")


# --- the comment ------------------------------------------------------------------------------------------------------


def _post(reviewed: Reviewed, about: Run, number: int | None, token: str) -> None:
    if about.place is None or number is None:
        return tell("No comment: this run is for no pull request.")
    if not token:
        why = "it comes from a fork, and runs for forks get none" if about.is_fork else f"{TOKEN} is not set"
        where = "the page of this run has the plan" if about.summary else "plan.md has the plan"
        return tell(f"No comment: this run has no token that may write ({why}); {where}.")
    try:
        text = asyncio.run(_comment(reviewed, about, about.place, number, require_token(token, TOKEN)))
        return tell(text)
    except CloudLunacyError as error:
        tell(f"No comment: {error}")
        if about.annotations == "github":
            say(f"::warning title=CloudLunacy::{_data(f'The plan could not be posted: {error}')}")


async def _comment(reviewed: Reviewed, about: Run, place: Place, number: int, token: str) -> str:
    forge = open_forge(place, Access(lambda: token, username=os.environ.get("CLOUDLUNACY_FORGE_USERNAME", "")))
    body = comment_of(
        reviewed, revision=about.revision, page=about.page, html=forge.shows_html, limit=forge.comment_limit
    )
    try:
        done = await _patiently(lambda: put_comment(forge, number, MARKER, body))
    finally:
        await forge.close()
    return f"The comment of pull request {number} is {done}."


async def _patiently(attempt: Callable[[], Awaitable[str]]) -> str:
    for _ in range(TRIES - 1):
        try:
            return await attempt()
        except Transient as error:
            pause = error.retry_after or FIRST_PAUSE
            if pause > LONGEST_PAUSE:
                raise
            tell(f"{error} Trying again in {pause:.0f} s.")
            await asyncio.sleep(pause)
    return await attempt()


def _data(text: str) -> str:
    """Escape the data of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
