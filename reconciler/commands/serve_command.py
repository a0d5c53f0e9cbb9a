"""``cloudlunacy serve``: the control plane."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

from reconciler.app import serve
from reconciler.app.own_names import is_loopback, is_unspecified
from reconciler.errors import Broken, Misused
from reconciler.git.remote import Remote
from reconciler.observability import logs
from reconciler.settings import ENVIRONMENT, FrontSettings, Settings, git_settings, otlp_endpoint, secret_file
from reconciler.traefik.api import TraefikAPI
from schemas.tokens import origin

MOST_SECONDS = 86_400
LONGEST_HEARTBEAT = 3600

BRANCH = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    variables = "\n".join(f"  {name}\n      {text}" for name, text in ENVIRONMENT.items())
    parser = subparsers.add_parser(
        "serve",
        help="run the control plane",
        description="Follow a branch of a state repo and bring it into service.",
        epilog=f"environment:\n{variables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repo", required=True, metavar="URL", help="remote of the state repo: https, ssh or a path")
    parser.add_argument("--branch", default="main", help="branch to follow (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="directory for all that must not be lost"
    )
    parser.add_argument("--listen", default="127.0.0.1:7300", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--public-url", default="", metavar="URL", help="address under which agents reach it")
    parser.add_argument("--plain-http", action="store_true",
                        help="no TLS, on loopback only: for a proxy on this machine that ends it")  # fmt: skip
    parser.add_argument("--traefik-file", type=Path, action="append", default=[], metavar="PATH",
                        help="file in the directory that Traefik watches; repeat it for each front")  # fmt: skip
    parser.add_argument("--traefik-api", action="append", default=[], metavar="URL",
                        help="API of the same Traefik, in the same order")  # fmt: skip
    parser.add_argument("--acme-http-port", type=int, default=0, metavar="PORT",
                        help="loopback port where Traefik finds answers for ACME servers (default: any)")  # fmt: skip
    parser.add_argument("--poll", type=float, default=30.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument(
        "--heartbeat",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="of agents, where fleet.yaml says nothing (default: %(default)s)",
    )
    parser.add_argument("--agent-series", type=int, default=500, metavar="N",
                        help="agents of which /metrics/agents has numbers (default: %(default)s)")  # fmt: skip
    parser.add_argument("--deployment-series", type=int, default=2000, metavar="N",
                        help="deployments of which it has numbers (default: %(default)s)")  # fmt: skip
    parser.add_argument("--push-burst", type=int, default=6, metavar="N",
                        help="pushes at once; GitHub recommends 6 a minute (default: %(default)s)")  # fmt: skip
    parser.add_argument("--push-interval", type=float, default=10.0, metavar="SECONDS",
                        help="time in which one more push becomes possible (default: %(default)s)")  # fmt: skip
    parser.add_argument("--log-format", choices=("auto", "json", "text"), default="auto")
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    os.umask(0o077)  # whatever mode the data directory was made with, what lies in it is nobody else's
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what a crash would write has every key in it
    logs.configure(level=options.log_level, format=options.log_format)
    asyncio.run(serve(settings_of(options)))
    return 0


def settings_of(options: argparse.Namespace) -> Settings:
    """Combine flags and environment.

    Raises:
        Misused: when they make no sense, or do not fit together.
        Broken: when a variable names a file that is not there.
    """
    if len(options.traefik_file) != len(options.traefik_api):
        raise Misused(
            "each --traefik-file needs its --traefik-api.",
            hint="The control plane asks Traefik what it really loaded; without it nothing could be promised.",
        )
    times = (options.poll, options.push_interval, options.heartbeat)
    if options.heartbeat > LONGEST_HEARTBEAT:
        raise Misused(f"--heartbeat is at most {LONGEST_HEARTBEAT:,} seconds.")
    if not all(0 < time <= MOST_SECONDS for time in times) or options.push_burst < 1:
        raise Misused(f"times must be greater than 0 and at most {MOST_SECONDS:,}, numbers at least 1.")
    if min(options.agent_series, options.deployment_series) < 0:
        raise Misused("--agent-series and --deployment-series are numbers, and 0 means none.")
    if not 0 <= options.acme_http_port <= 65535:
        raise Misused(f"--acme-http-port {options.acme_http_port} is no port.")
    _require(Remote.parse, options.repo)
    for api in options.traefik_api:
        _require(TraefikAPI, api)
    if not BRANCH.fullmatch(options.branch):
        raise Misused(f'"{options.branch}" is no name of a branch.', hint="Write it like main or release/1.0.")
    host, port = _host_and_port(options.listen)
    if options.plain_http and not is_loopback(host):
        raise Misused(
            f"--plain-http would send credentials over the network in clear, because {host} is not loopback.",
            hint="Listen on 127.0.0.1 and let a proxy on this machine end TLS, or leave --plain-http out.",
        )
    public_url = _public_url(options.public_url)
    if is_unspecified(host) and not public_url:
        raise Misused(
            f"--listen {options.listen} means every address of this machine, and names none that agents can be told.",
            hint="Add --public-url with the one at which agents reach it, like https://control.example.com:7300.",
        )
    return Settings(
        git=git_settings(options.repo, options.branch, os.environ),
        data=options.data.absolute(),
        host=host,
        port=port,
        fronts=tuple(
            FrontSettings(file.absolute(), api)
            for file, api in zip(options.traefik_file, options.traefik_api, strict=True)
        ),
        poll_seconds=options.poll,
        public_url=public_url,
        plain_http=options.plain_http,
        traefik_binary=os.environ.get("TRAEFIK_BIN", ""),
        webhook_secret_file=secret_file(os.environ, "CLOUDLUNACY_WEBHOOK_SECRET_FILE"),
        key_file=secret_file(os.environ, "CLOUDLUNACY_KEY_FILE"),
        key_passphrase_file=secret_file(os.environ, "CLOUDLUNACY_KEY_PASSPHRASE_FILE"),
        acme_file=secret_file(os.environ, "CLOUDLUNACY_ACME_FILE"),
        forge_file=secret_file(os.environ, "CLOUDLUNACY_FORGE_FILE"),
        otlp_endpoint=otlp_endpoint(os.environ),
        oidc_file=secret_file(os.environ, "CLOUDLUNACY_OIDC_FILE"),
        acme_http_port=options.acme_http_port,
        heartbeat_seconds=options.heartbeat,
        agent_series=options.agent_series,
        deployment_series=options.deployment_series,
        push_burst=options.push_burst,
        push_seconds=options.push_interval,
    )


def _require(accepted: Callable[[str], object], value: str) -> None:
    """Let the part that a flag is for judge it before anything is made."""
    try:
        accepted(value)
    except Broken as error:
        raise Misused(error.message, hint=error.hint) from None


def _public_url(text: str) -> str:
    url = text.rstrip("/")
    if url and not _is_origin(url):
        raise Misused(f"{text} is no public URL.", hint="Write it like https://control.example.com:7300.")
    return url


def _is_origin(url: str) -> bool:
    try:
        return origin(url).startswith(("http:", "https:"))
    except ValueError:
        return False


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Misused(f'"{text}" is no HOST:PORT.', hint="Write it like 127.0.0.1:7300, or [::1]:7300.")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - whoever leaves the host out asks for all
