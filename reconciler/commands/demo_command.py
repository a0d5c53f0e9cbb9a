"""``cloudlunacy demo``: a whole fleet on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from reconciler.commands.demo.bring_up import Demo
from reconciler.commands.demo.folder import open_folder, shown
from reconciler.commands.demo.follow import follow
from reconciler.commands.demo.narrator import Narrator
from reconciler.commands.demo.once import try_once, wait_served
from reconciler.commands.demo.programs import find_programs
from reconciler.commands.demo.screen import screen
from reconciler.commands.demo.supervisor import Interrupted, Supervisor
from reconciler.commands.output import say, say_json, tell, wants_colour
from reconciler.commands.status_formats import format_status
from reconciler.errors import Broken, Refused, Transient
from schemas.status import RevisionStatus


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="run a whole fleet on this machine",
        description="Bring up a git remote, the control plane, the real Traefik, two agents that enrol themselves, "
        "small apps behind them and MongoDB; say what to try, and tell each push. All of it listens on 127.0.0.1. "
        "With --once: push one change, check that it is served, print its convergence record, and end; exit code 0 "
        "when all of it went well.",
    )
    parser.add_argument("--once", action="store_true", help="push one change, check it, and end")
    parser.add_argument("--dir", type=Path, default=Path(".demo"), metavar="DIR",
                        help="where everything lies; emptied at each start (default: %(default)s)")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="go on with what is in the directory")
    parser.add_argument("--free-ports", action="store_true", help="take any free ports, not the usual ones")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S",
                        help="seconds for all but the stay (default: %(default)g)")  # fmt: skip
    parser.add_argument("--format", choices=("text", "json"), default="text", help="of the record that --once prints")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Bring it up, then stay until Ctrl-C or, with --once, try it and end."""
    if options.timeout <= 0:
        raise Broken("--timeout must be greater than 0.")
    traefik = os.environ.get("TRAEFIK_BIN")
    programs = find_programs(Path(traefik) if traefik else None)
    with open_folder(options.dir, keep=options.keep) as folder, Supervisor(folder, options.timeout) as supervisor:
        demo = Demo(folder, programs, supervisor, usual_ports=not options.free_ports, progress=tell)
        try:
            status = demo.bring_up()
            if options.once or not options.keep:  # who stays in a kept one may have broken what they like
                wait_served(demo)
            if options.once:
                _print_record(try_once(demo, tell), options.format)
                return 0
            return _stay(demo, status)
        except Interrupted as interrupted:
            tell(f"cloudlunacy: interrupted by {interrupted} before it was done")
            return interrupted.exit_code
        except (Transient, Refused):
            supervisor.require_alive()  # a control plane that has died is the better reason
            raise


def _stay(demo: Demo, status: RevisionStatus) -> int:
    colour = wants_colour(sys.stdout)
    narrator = Narrator(shlex.join(["--data", shown(demo.folder.data, demo.folder.work)]), colour=colour)
    narrator.know(status)
    say(screen(demo, status, colour=colour))
    try:
        follow(demo.target, narrator, say, demo.supervisor.check)
    except Interrupted:
        tell("\nending …")
    return 0


def _print_record(status: RevisionStatus, form: str) -> None:
    if form == "json":
        say_json(status.model_dump(mode="json", by_alias=True))
    else:
        say(format_status(status, colour=wants_colour(sys.stdout)))
