"""``cloudlunacy render``: Traefik's configuration as the control plane would publish it, and its static part."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from reconciler.commands.evaluate import judge
from reconciler.commands.output import say, tell
from reconciler.commands.problem_formats import format_problems, summarise
from reconciler.commands.revisions import tree_of
from reconciler.desired.composition import Composition, joined
from reconciler.desired.render import Renderer
from reconciler.desired.routing import catch_all
from reconciler.desired.state import State
from reconciler.errors import Broken
from reconciler.traefik.static import static_configuration
from reconciler.traefik.templates import load_templates
from schemas.fleet import Fleet
from schemas.route import Route

STATIC = "traefik.yml"
DYNAMIC = "dynamic/cloudlunacy.yml"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "render",
        help="write Traefik's configuration",
        description=f"Write the recommended static configuration ({STATIC}), with which Traefik can be started, and "
        f"the dynamic one ({DYNAMIC}) that the control plane would publish for a state repo. What is sealed stays "
        "sealed: routes with passwords get none that anybody knows.",
    )
    parser.add_argument("where", nargs="?", default=".", metavar="DIR|REV", help="state repo (default: .)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write to")
    parser.add_argument("--address", action="append", default=[], metavar="NAME=HOST:PORT",
                        help="where an entry point listens, such as web=127.0.0.1:8000; may be repeated")  # fmt: skip
    parser.add_argument(
        "--api", default="127.0.0.1:8080", metavar="HOST:PORT", help="Traefik's API (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write both files; 1 where objects were left out because of errors."""
    verdict = judge(tree_of(options.where))
    state = verdict.settled.state
    if verdict.problems:
        tell(format_problems(verdict.problems, verdict.objects, "text").rstrip())
        tell(summarise(verdict.problems, verdict.objects).rstrip())
    if state.fleet is None:
        raise Broken("there is no valid fleet.yaml, so nothing can be rendered.")
    renderer = Renderer(load_templates())
    dynamic = options.out / DYNAMIC
    try:
        dynamic.parent.mkdir(parents=True, exist_ok=True)
        static = static_configuration(
            renderer, state.fleet, dynamic.parent, addresses=_addresses(options.address), api_address=options.api
        )
        (options.out / STATIC).write_text(static, encoding="utf-8")
        dynamic.write_text(_dynamic(renderer, state, state.fleet), encoding="utf-8")
    except OSError as error:
        raise Broken(f"{error.filename} cannot be written: {error.strerror}.") from None
    say(f"{options.out / STATIC}\n{dynamic}")
    return 1 if verdict.errors else 0


def _dynamic(renderer: Renderer, state: State, fleet: Fleet) -> str:
    served = {key: one.object for key, one in state.served.items()}
    routes = Composition().replaced(
        {key: renderer.route(one, state.compiled[key]) for key, one in served.items() if isinstance(one, Route)}
    )
    common = renderer.fragments(catch_all(fleet, tls_entry_points=routes.tls_entry_points))
    # no control plane publishes generation 0: a Traefik that runs this file has loaded none of its publications
    return b"".join(renderer.compose([joined([common]), *routes.texts], generation=0, revision="0" * 40)).decode()


def _addresses(pairs: list[str]) -> Mapping[str, str]:
    addresses = {}
    for pair in pairs:
        name, equals, address = pair.partition("=")
        if not equals or ":" not in address:
            raise Broken(f'"{pair}" is no address of an entry point.', hint="Write NAME=HOST:PORT or NAME=:PORT.")
        addresses[name] = address
    return addresses
