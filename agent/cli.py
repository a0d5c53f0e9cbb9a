"""``cloudlunacy agent …``: the commands of a server that is part of the fleet."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import logging
import sys
import time
from pathlib import Path

from pydantic import SecretStr

from agent import asking_route, status
from agent.building import build
from agent.client import run_until_signalled
from agent.credentials import Credentials
from agent.enrol import EnrolmentFailed, Wanted, enrol
from agent.installing import command
from agent.installing.layout import Layout
from agent.installing.machine import capabilities_of
from agent.keys import Unusable
from agent.pinning import Untrusted
from agent.restoring import add_restore
from agent.settings import load

CAPABILITIES = ("container", "process", "mongodb")


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Add ``agent`` with its actions to the commands; return the actions, for those of the control plane."""
    about = "be a server of the fleet, or lock one out"
    parser = subparsers.add_parser("agent", help=about, description="Commands of and for agents.")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_enrol(actions)
    _add_run(actions)
    _add_status(actions)
    asking_route.add_action(actions)
    command.add_actions(actions)
    add_restore(actions)
    return actions


def _add_enrol(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "enrol",
        help="become an agent",
        description="Make a key, prove it to the control plane with a one-time token, and have the enrolment committed "
        "to the state repo. May be repeated; it goes on where it was.",
    )
    parser.add_argument("--server", required=True, metavar="URL", help="address of the control plane")
    token = parser.add_mutually_exclusive_group(required=True)
    token.add_argument("--token", metavar="T", help="one-time token, from: cloudlunacy token create")
    token.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file that holds the token; - for standard input"
    )
    parser.add_argument("--ca-sha256", metavar="HEX", help="fingerprint of the control plane's authority, for https")
    parser.add_argument("--name", required=True, metavar="N", help="name of this agent")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="directory for key and desired state")
    parser.add_argument(
        "--address", metavar="HOST", help="where Traefik reaches this machine (default: as seen from here)"
    )
    parser.add_argument(
        "--capability", action="append", choices=(*CAPABILITIES, "none"), default=[],
        help="may be repeated (default: what this machine has, or all where that is nothing; none: only routes and "
        "certificates); what the state repo says already stays",
    )  # fmt: skip
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds to try (default: %(default)s)"
    )
    parser.add_argument("--insecure", action="store_true", help="allow http to another machine")
    parser.set_defaults(run=_run_enrol)


def _add_run(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "run",
        help="run the agent",
        description="Keep one connection to the control plane, apply what it sends, and go on from disk without it.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the directory given to enrol")
    parser.add_argument(
        "--engine", metavar="SOCKET", help="socket of the container engine, or off (default: Docker's, else Podman's)"
    )
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="where ports are published; may be repeated (default: the agent's own address, else everywhere)",
    )
    parser.add_argument(
        "--ports", type=_ports, metavar="FIRST-LAST", help="for versions beside others (default: 20000-29999)"
    )
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    parser.set_defaults(run=_run_agent)


def _add_status(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "status",
        help="say how it stands with this machine",
        description="Say who this machine is, how long its certificate lasts, and what is applied, from its disk.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the directory given to enrol")
    parser.set_defaults(run=_run_status)


def _run_enrol(options: argparse.Namespace) -> int:
    try:
        wanted = Wanted(
            server=options.server,
            token=SecretStr(options.token or _read_token(options.token_file)),
            name=options.name,
            ca_sha256=options.ca_sha256,
            address=options.address,
            capabilities=_capabilities(options.capability),
            labels=_labels(options.label),
            version=importlib.metadata.version("cloudlunacy"),
            insecure=options.insecure,
        )
        answer = asyncio.run(enrol(wanted, options.data, wait_seconds=options.timeout))
    except (EnrolmentFailed, Unusable) as error:
        return _fail(str(error))
    except Untrusted as error:
        return _fail(f"{error} {_trust_hint(wanted)}")
    except OSError as error:
        return _fail(f"{str(error).rstrip('.')}. Is the control plane at {options.server} running and ready?")
    if answer.state == "committed":
        sys.stdout.write(f"{answer.name} is enrolled with key {answer.thumbprint} in {answer.revision}\n")
    elif answer.state == "proposed":
        sys.stdout.write(f"{answer.name} is on branch enrol/{answer.name}; somebody has to merge it\n")
    else:
        sys.stdout.write(f"{answer.name} is accepted and will be committed; run the agent, it waits for that\n")
    return 0


def _capabilities(said: list[str]) -> tuple[str, ...]:
    """Return what was said, else what is found here.

    Where that is nothing, it is not known what the machine is meant for: all, as in a new state repo. What it then
    cannot run is told of each deployment (docs/adr/0044), and runs as soon as there is something to run it.
    """
    if said:
        return tuple(one for one in said if one != "none")
    return capabilities_of(Layout(Path("/"))) or CAPABILITIES


def _run_agent(options: argparse.Namespace) -> int:
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        given = {"engine": options.engine, "publish": tuple(options.publish), "ports": options.ports}
        settings = load(options.data, **given)
        credentials = Credentials.load(options.data)
        services, parts = build(options.data, credentials, settings)
        run_until_signalled(options.data, services, credentials, parts=parts)
    except Unusable as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or options.data} cannot be read: {error.strerror}")
    return 0


def _run_status(options: argparse.Namespace) -> int:
    try:
        sys.stdout.writelines(f"{line}\n" for line in status.lines(options.data, time.time()))
    except Unusable as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or options.data} cannot be read: {error.strerror}")
    return 0


def _trust_hint(wanted: Wanted) -> str:
    if wanted.ca_sha256 is None:
        return "Give the fingerprint of its authority with --ca-sha256; cloudlunacy token create prints it."
    return "Nothing was sent to it."


def _read_token(path: Path) -> str:
    try:
        text = sys.stdin.readline(1024) if str(path) == "-" else path.read_text(encoding="utf-8")[:1024]
    except (OSError, UnicodeDecodeError):
        # its name is not repeated: it may be the token
        raise Unusable("the file of --token-file cannot be read; it should hold the token.") from None
    return text.strip()


def _ports(text: str) -> dict[str, str]:
    first, dash, last = text.partition("-")
    if not dash:
        raise argparse.ArgumentTypeError("write FIRST-LAST")
    return {"first": first, "last": last}


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Unusable(f'"{pair}" is no label; write KEY=VALUE.')
        labels[key] = value
    return labels


def _fail(message: str) -> int:
    sys.stderr.write(f"cloudlunacy: {message}\n")
    return 1
