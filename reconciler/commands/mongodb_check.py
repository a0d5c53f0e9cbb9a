"""``cloudlunacy mongodb check``: what is wrong with a connection string, within two seconds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from reconciler.commands.mongodb_lookup import NAME, add_options, ca_file_of, connection_string, look, openers_of
from reconciler.commands.output import say, say_json
from reconciler.desired.finding import did_you_mean
from reconciler.errors import Broken, CloudLunacyError, Misused
from reconciler.mongodb.check import Passed, Wanted, check
from reconciler.mongodb.connection_string import PORT, SCHEME
from reconciler.mongodb.places import Place, find, places

STANDARD_INPUT = "-"


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "check",
        help="find out what is wrong with a connection",
        description="Connect as a driver does, step by step, and say within two seconds what is wrong. With a "
        "connection string, or with - one from standard input, so that nobody sees the password; or with a name, "
        "whose password is opened with --data or --identity.",
    )
    parser.add_argument("name", metavar="URI|NAME", help=f"connection string, or {NAME}")
    add_options(parser)
    parser.add_argument("--connect", default="", metavar="ADDRESS", help="IP address to try in place of what DNS says")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Go through the steps for each database that is meant; 1 at the first that fails."""
    for wanted in _wanted(options):
        passed: list[Passed] = []
        try:
            for one in check(wanted):
                passed.append(one)
                if options.format == "text":
                    say(f"{one.step:8} {one.found}")
        except CloudLunacyError as error:
            if options.format == "json":
                say_json(_as_json(wanted, passed, error))
            raise
        if options.format == "json":
            say_json(_as_json(wanted, passed, None))
    return 0


def _wanted(options: argparse.Namespace) -> Iterator[Wanted]:
    text = sys.stdin.readline().strip() if options.name == STANDARD_INPUT else options.name
    if "://" in text or "@" in text:
        yield _of_uri(text, options)
        return
    looked = look(options)
    openers = openers_of(options)
    for place in find(text, looked.state):
        one = connection_string(place, looked, openers, user=options.user, database=options.database)
        yield Wanted(
            host=one.host,
            port=one.port,
            user=one.user if openers else "",
            password=one.password if openers else "",
            database=one.database,
            auth_source=one.auth_source,
            ca_file=_ca_file(options) or ca_file_of(options.data, place),
            address=options.connect,
            route=place.spec,
        )


def _of_uri(text: str, options: argparse.Namespace) -> Wanted:
    """Take a connection string apart.

    Raises:
        Misused: when it is none, or names several servers.
    """
    if not text.startswith(SCHEME):
        raise Misused(f"a connection string begins with {SCHEME}", hint="A name of one server is what is meant here.")
    try:
        parsed: dict[str, Any] = parse_uri(text, validate=True, warn=False)
    except (PyMongoError, ValueError) as error:
        if "@" in text:  # what pymongo says may quote a part of the password
            hint = "Every reserved character of user and password has to be percent-encoded."
            raise Misused("this is no connection string that can be used.", hint=hint) from None
        raise Misused(f"this is no connection string that can be used: {error}.") from None
    except OSError as error:  # it looks for the files that are named
        raise Misused(f"this is no connection string that can be used: {error}.") from None
    if len(parsed["nodelist"]) != 1:
        raise Misused("the connection string names several servers.", hint="A database behind Traefik has one name.")
    host, port = parsed["nodelist"][0]
    said = parsed["options"]
    place, guess = _known(host, options)
    return Wanted(
        host=host,
        port=port or PORT,
        user=parsed["username"] or "",
        password=parsed["password"] or "",
        database=parsed["database"] or "",
        auth_source=said.get("authSource", ""),
        tls=bool(said.get("tls", False)),
        ca_file=_ca_file(options) or str(said.get("tlsCAFile", "")) or _known_roots(options, place),
        address=options.connect,
        route=place.spec if place is not None else None,
        guess=guess,
    )


def _known(host: str, options: argparse.Namespace) -> tuple[Place | None, str]:
    """Look the host up where a state was named; a connection string can be checked without."""
    if options.dir is None and options.server is None and options.data is None:
        return None, ""
    known = {one.host: one for one in places(look(options).state)}
    return known.get(host), "" if host in known else did_you_mean(host, known)


def _ca_file(options: argparse.Namespace) -> str:
    if options.ca_file is not None:
        path: Path = options.ca_file
        if not path.is_file():
            raise Broken(f"{path} is no file.", hint="It should hold roots (PEM).")
        return str(path)
    return ""


def _known_roots(options: argparse.Namespace, place: Place | None) -> str:
    return ca_file_of(options.data, place) if place is not None else ""


def _as_json(wanted: Wanted, passed: list[Passed], error: CloudLunacyError | None) -> dict[str, object]:
    return {
        "host": wanted.host,
        "port": wanted.port,
        "ok": error is None,
        "steps": [{"step": one.step, "found": one.found} for one in passed],
        "message": error.message if error is not None else "",
        "hint": error.hint if error is not None else "",
    }
