"""Changes of objects from the terminal: ``object``, ``route``, ``rollback``, and ``agent cordon``; each is a commit."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json
from reconciler.errors import Broken, Misused
from schemas.changes_api import YAML_TYPE, ChangeAnswer, ChangeCheck, ObjectView
from schemas.text import visible

_WEIGHT: Final = 1000


def add_object_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``object``."""
    parser = subparsers.add_parser(
        "object", help="read and change objects by commits", description="Read and change objects by commits."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    get = actions.add_parser("get", help="print the file of an object", description="Print the newest file of an "
                             "object, or as JSON also how it stands and which version (blob) this is.")  # fmt: skip
    put = actions.add_parser("put", help="write an object", description="Write an object by a commit. What is there is "
                             "written over only where --seen names its version, or with --force.")  # fmt: skip
    put.add_argument("file", metavar="FILE", help="YAML, or - for standard input")
    delete = actions.add_parser("delete", help="delete an object", description="Delete an object by a commit, where "
                                "--seen names its version, or with --force.")  # fmt: skip
    for one, run in ((get, run_get), (put, run_put), (delete, run_delete)):
        one.add_argument("path", metavar="PATH", help="its file in the state repo, such as routes/shop/web.yaml")
        _add_common(one, run, changes=one is not get)
    for one in (put, delete):
        seen = one.add_mutually_exclusive_group()
        seen.add_argument("--seen", metavar="BLOB", help="version that was looked at, as object get --format json says")
        seen.add_argument("--force", action="store_true", help="whatever is there")


def add_rollback_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``rollback``."""
    parser = subparsers.add_parser(
        "rollback",
        help="take a revision back by a commit",
        description="Take a revision back by a commit: its objects become what they were before it. Where something "
        "was changed since in the same place, nothing is done.",
    )
    parser.add_argument("revision", metavar="REV", help="commit, or at least 7 digits of it")
    parser.add_argument("--check", action="store_true", help="say what it would do, and do nothing")
    _add_common(parser, run_rollback)


def add_route_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``route``."""
    parser = subparsers.add_parser("route", help="move traffic between backends", description="Move traffic.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    weights = actions.add_parser(
        "weights",
        help="share requests between backends",
        description="Change the weights of a route's backends by a commit; those that are not named keep theirs. A "
        "backend is named as the route writes it: AGENT:PORT, DEPLOYMENT or DEPLOYMENT:PORT.",
    )
    weights.add_argument("route", metavar="TEAM/NAME")
    weights.add_argument("weights", metavar="BACKEND=WEIGHT", nargs="+", help=f"0 to {_WEIGHT}; 0 takes it out")
    _add_common(weights, run_weights)


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``agent``."""
    cordon = actions.add_parser(
        "cordon",
        help="give an agent no new work",
        description="Give an agent no new work, by a commit (state: cordoned). What it has, it keeps.",
    )
    uncordon = actions.add_parser(
        "uncordon", help="let an agent have new work again", description="Let an agent have new work, by a commit."
    )
    for parser, run in ((cordon, run_cordon), (uncordon, run_uncordon)):
        parser.add_argument("name", metavar="NAME", help="name of the agent")
        _add_common(parser, run)


def _add_common(parser: argparse.ArgumentParser, run: Any, *, changes: bool = True) -> None:  # noqa: ANN401
    if changes:
        parser.add_argument("--message", default="", metavar="TEXT", help="what the commit says")
        parser.add_argument("--proposal", action="store_true", help="on a branch of its own, that waits to be merged")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_target_options(parser)
    parser.set_defaults(run=run)


# --- running ----------------------------------------------------------------------------------------------------------


def run_get(options: argparse.Namespace) -> int:
    """Print the file, or all that is known."""
    with Client(target_of(options, os.environ)) as client:
        answer = client.get(_object(options))
    if options.format == "json":
        say_json(answer)
    else:
        say(ObjectView.model_validate(answer).text or "")
    return 0


def run_put(options: argparse.Namespace) -> int:
    """Write it."""
    content = _content(options.file)
    headers = {"Content-Type": YAML_TYPE, **_condition(options)}
    return _told(options, "PUT", _object(options), headers=headers, params=_query(options), content=content)


def run_delete(options: argparse.Namespace) -> int:
    """Delete it."""
    return _told(options, "DELETE", _object(options), headers=_condition(options), params=_query(options))


def run_rollback(options: argparse.Namespace) -> int:
    """Take it back, or say what that would do."""
    path = f"/revisions/{quote(options.revision, safe='')}/revert"
    if not options.check:
        return _told(options, "POST", path, json=_body(options))
    with Client(target_of(options, os.environ)) as client:
        answer = client.get(path)
    if options.format == "json":
        say_json(answer)
    else:
        say("\n".join(_check_lines(ChangeCheck.model_validate(answer))))
    return 0


def run_weights(options: argparse.Namespace) -> int:
    """Move traffic."""
    team, slash, name = options.route.partition("/")
    if not slash or not team or not name:
        raise Misused(f'"{options.route}" is no route.', hint="Write TEAM/NAME, such as shop/web.")
    path = f"/routes/{quote(team, safe='')}/{quote(name, safe='')}/weights"
    return _told(options, "PUT", path, json={**_body(options), "weights": dict(map(_weight, options.weights))})


def run_cordon(options: argparse.Namespace) -> int:
    """Cordon it."""
    return _told(options, "POST", f"/agents/{quote(options.name, safe='')}/cordon", json=_body(options))


def run_uncordon(options: argparse.Namespace) -> int:
    """Uncordon it."""
    return _told(options, "POST", f"/agents/{quote(options.name, safe='')}/uncordon", json=_body(options))


def _told(options: argparse.Namespace, method: str, path: str, **request: Any) -> int:  # noqa: ANN401 - httpx's
    with Client(target_of(options, os.environ)) as client:
        answer = client.send(method, path, **request)
    if options.format == "json":
        say_json(answer)
    else:
        say("\n".join(answer_lines(ChangeAnswer.model_validate(answer))))
    return 0


def answer_lines(done: ChangeAnswer) -> list[str]:
    """Return what to tell a person of a change that was accepted."""
    first = {
        "committed": f"{done.message}: committed as {done.revision[:12]}.",
        "pending": f"{done.message}: kept, and committed once the remote answers.",
        "proposed": f"{done.message}: waits to be merged on branch {done.branch}.",
        "nothing": "Nothing to change: the branch says so already.",
        "conflicted": done.message,
    }[done.state]
    more = [f"Pull request: {done.pull_request}"] if done.pull_request else []
    return [visible(first), *map(visible, more), *map(str, done.problems)]


def _check_lines(check: ChangeCheck) -> list[str]:
    files = [visible(f"{one.action} {one.path}") for one in check.files if one.action != "none"]
    traffic = check.plan.traffic if check.plan is not None else ()
    moves = [
        visible(f"{one.host}: {one.before or 'nobody'} -> {one.after or 'nobody'} {', '.join(one.effects)}".rstrip())
        for one in traffic
    ]
    return [visible(check.message), *files, *moves, *(f"refused: {one}" for one in check.blocking)]


def _object(options: argparse.Namespace) -> str:
    return f"/objects/{quote(options.path)}"


def _condition(options: argparse.Namespace) -> dict[str, str]:
    if options.force:
        return {"If-Match": "*"}
    return {"If-Match": f'"{options.seen}"'} if options.seen else {}


def _query(options: argparse.Namespace) -> dict[str, str]:
    proposal = {"proposal": "true"} if options.proposal else {}
    return proposal | ({"message": options.message} if options.message else {})


def _body(options: argparse.Namespace) -> dict[str, Any]:
    return {"message": options.message, **({"proposal": True} if options.proposal else {})}


def _weight(text: str) -> tuple[str, int]:
    backend, equals, weight = text.rpartition("=")
    if not equals or not backend or not weight.isascii() or not weight.isdigit() or int(weight) > _WEIGHT:
        raise Misused(f'"{text}" is no weight.', hint="Write BACKEND=WEIGHT, such as vps-1:8081=90.")
    return backend, int(weight)


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Broken(f"{name} cannot be read: {error.strerror}.") from None
