"""``cloudlunacy explain URL``: who answers a request, and why."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from urllib.parse import urlencode

from reconciler.commands.client import Client, add_target_options, target_of
from reconciler.commands.output import say, say_json
from schemas.explain_api import ExplainedBackend, ExplainedRouter, Explanation


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="say who answers a URL, and why",
        description="Say what the fronts do with a request: entry point, certificate, the router that wins and what it "
        "beats, middlewares in order, backends with their shares, and what the client gets.",
    )
    parser.add_argument("url", metavar="URL", help="such as https://shop.example.com/cart, or mongodb://…")
    parser.add_argument("--method", default="GET", help="of the request; GET by default")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="may be given again")
    add_target_options(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the explanation. Returns 1 where nobody answers it."""
    asked = [("url", options.url), ("method", options.method), *(("header", one) for one in options.header)]
    with Client(target_of(options, os.environ)) as client:
        found = client.read(Explanation, f"/explain?{urlencode(asked)}")
    if options.format == "json":
        say_json(found.model_dump(mode="json", by_alias=True))
    else:
        say(as_text(found))
    return 0 if found.outcome in ("backend", "redirect", "control-plane") else 1


def as_text(found: Explanation) -> str:
    """Return the explanation as lines."""
    return "\n".join(_lines(found))


def _lines(found: Explanation) -> Iterator[str]:
    yield f"{found.method} {found.url}"
    yield f"  {found.message}"
    if found.hint:
        yield f"  {found.hint}"
    if found.entry_point:
        yield f"  entry point  {found.entry_point}"
    if found.tls is not None:
        yield f"  TLS          {found.tls.message or f'certificate {found.tls.certificate}'}"
    yield from _way(found)
    yield from (f"  beaten       {_router(one)}" for one in found.beaten)
    yield from (f"  not          {_router(one)}: {one.why}" for one in found.others)
    yield from (f"  note         {note}" for note in found.notes)


def _way(found: Explanation) -> Iterator[str]:
    if found.router is not None:
        yield f"  router       {_router(found.router)}, {found.router.file}"
    if found.retained:
        yield "               its newest version is quarantined; this is the last good one"
    for number, step in enumerate(found.middlewares, 1):
        yield f"  {number:>2}. {step.kind:<15} {step.words}"
    if found.path_at_backend:
        yield f"  path         {found.path_at_backend} at the backend"
    for backend in found.backends:
        yield f"  {backend.share:>6.1%}  {_where(backend)}  {backend.state}"


def _router(one: ExplainedRouter) -> str:
    return f"{one.team}/{one.route}: {one.rule} (priority {one.priority})"


def _where(backend: ExplainedBackend) -> str:
    name = f"{backend.agent} {backend.actual or backend.address}".strip()
    return f"{name} ({backend.deployment})" if backend.deployment else name or "nowhere"
