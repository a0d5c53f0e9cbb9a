"""``cloudlunacy agent install``, ``upgrade`` and ``uninstall``."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from pydantic import SecretStr

from agent.credentials import AgentFile
from agent.enrol import EnrolmentFailed, Wanted, enrol
from agent.installing import plan
from agent.installing.fetching import fetch
from agent.installing.layout import DATA, PROGRAM, UNIT, UNITS, Layout
from agent.installing.machine import CONNECT_SECONDS, Machine, capabilities_of
from agent.installing.plan import Cannot, Installation, Removal, Step
from agent.installing.releases import Release, Releases, of_wheel
from agent.installing.systemctl import Systemctl
from agent.installing.unit import unit_text
from agent.installing.upgrading import upgrade
from agent.keys import Unusable
from agent.pinning import Untrusted

CAPABILITIES = ("container", "process", "mongodb", "none")
TOKEN = "CLOUDLUNACY_TOKEN"  # noqa: S105 - the name of a variable
_WORDS = 1024


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add to the actions of ``agent``."""
    _add_install(actions)
    _add_upgrade(actions)
    _add_uninstall(actions)


def _add_install(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "install",
        help="make this machine an agent: enrol, systemd unit, start",
        description="Enrol this machine, write a systemd unit, start it and wait until it is connected. May be "
        "repeated; what is done already is left as it is. cloudlunacy token create prints the line that does all of it "
        "on a new machine.",
    )
    parser.add_argument("--server", required=True, metavar="URL", help="address of the control plane")
    parser.add_argument("--ca-sha256", metavar="HEX", help="fingerprint of the control plane's authority, for https")
    parser.add_argument("--name", required=True, metavar="N", help="name of this agent")
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help=f"file that holds the one-time token; - for standard input (default: the variable {TOKEN})",
    )  # fmt: skip
    token.add_argument("--token", metavar="T", help="the token; other users of this machine can see it here")
    parser.add_argument(
        "--address", metavar="HOST", help="where Traefik reaches this machine (default: as seen from here)"
    )
    parser.add_argument(
        "--capability", action="append", choices=CAPABILITIES, default=[],
        help="may be repeated (default: what this machine has; none: only routes and certificates, without root)",
    )  # fmt: skip
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    parser.add_argument("--insecure", action="store_true", help="allow http to another machine")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    _add_root(parser)
    parser.set_defaults(run=guarded(run_install))


def _add_upgrade(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "upgrade",
        help="bring this agent to another version",
        description="Make another release beside the running one and start it. Where it does not connect, the former "
        "one comes back by itself. Without options it is the version of the control plane.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--wheel", type=Path, metavar="FILE", help="the release, cloudlunacy-VERSION-py3-none-any.whl")
    which.add_argument("--version", metavar="V", help="a release that is here, or the one of the control plane")
    which.add_argument("--back", action="store_true", help="the former release")
    parser.add_argument("--index-url", metavar="URL", help="where pip finds what the program needs")
    parser.add_argument("--find-links", metavar="DIR", help="directory with wheels, in place of an index")
    parser.add_argument(
        "--connect-seconds", type=float, default=CONNECT_SECONDS, metavar="S",
        help="how long the new one may take to connect (default: %(default)s)",
    )  # fmt: skip
    _add_root(parser)
    parser.set_defaults(run=guarded(run_upgrade))


def _add_uninstall(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "uninstall",
        help="take the agent off this machine",
        description="Stop the agent, remove its unit and its program. What it runs goes on, and its data stay, unless "
        "you say otherwise. To lock it out as well: cloudlunacy agent revoke, on the control plane.",
    )
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--keep-data", action="store_true", help="leave key, certificates and volumes (default)")
    data.add_argument("--purge", action="store_true", help="remove them, with every volume and database of the agent")
    parser.add_argument("--remove-deployments", action="store_true", help="end and remove what the agent runs")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    _add_root(parser)
    parser.set_defaults(run=guarded(run_uninstall))


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=PurePosixPath, default=DATA, metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="prepare the machine in this directory instead"
    )
    parser.add_argument("--now", action="store_true", help="with --root: start it, as on a machine of its own")


def guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Turn what is expected to fail into a sentence and 1."""

    def guarded_run(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except (Cannot, EnrolmentFailed, Unusable, Untrusted) as error:
            message = str(error)
        except OSError as error:
            message = f"{error.filename or 'this machine'}: {error.strerror or error}."
        sys.stderr.write(f"cloudlunacy: {message}\n")
        return 1

    return guarded_run


# --- install --------------------------------------------------------------------------------------------------------


def run_install(options: argparse.Namespace) -> int:
    """Do what is left to do, and say so."""
    layout, systemctl = _places(options)
    capabilities = tuple(one for one in options.capability if one != "none")
    if not options.capability:
        capabilities = capabilities_of(layout)
    program = _program(layout)
    unit = unit_text(program, layout.data, root=bool(capabilities), path=UNITS / UNIT)
    machine = Machine(
        layout, systemctl, unit=unit, as_root=bool(capabilities),
        enrol=lambda: _enrol(options, layout, capabilities),
    )  # fmt: skip
    wanted = Installation(options.name, options.server, unit, bool(capabilities), systemctl.now, layout.data)
    steps = plan.install(machine.facts(), wanted, str(program))
    _do(machine, steps, dry=options.dry_run)
    if options.dry_run:
        return 0
    can = ", ".join(capabilities) or "routes and certificates only"
    rest = "is connected" if systemctl.now else "starts with the machine"
    _say(f"{options.name} {rest} ({can}). Its log: journalctl -u cloudlunacy-agent -f")
    return 0


def _enrol(options: argparse.Namespace, layout: Layout, capabilities: tuple[str, ...]) -> None:
    wanted = Wanted(
        server=options.server,
        token=_token(options),
        name=options.name,
        ca_sha256=options.ca_sha256,
        address=options.address,
        capabilities=capabilities,
        labels=_labels(options.label),
        version=importlib.metadata.version("cloudlunacy"),
        insecure=options.insecure,
    )
    answer = asyncio.run(enrol(wanted, layout.data_dir))
    if answer.state == "proposed":
        _say(f"  somebody has to merge the branch enrol/{answer.name}; the agent waits for that")


def _token(options: argparse.Namespace) -> SecretStr:
    if options.token:
        return SecretStr(options.token)
    if options.token_file is None:
        found = os.environ.get(TOKEN, "")
    elif str(options.token_file) == "-":
        found = sys.stdin.readline(_WORDS)
    else:
        try:
            found = options.token_file.read_text(encoding="utf-8")[:_WORDS]
        except (OSError, UnicodeDecodeError):
            raise Cannot("the file of --token-file cannot be read; it should hold the token.") from None
    if not found.strip():
        raise Cannot(f"a token is needed to enrol: --token-file FILE, - for standard input, or the variable {TOKEN}.")
    return SecretStr(found.strip())


def _labels(pairs: Iterable[str]) -> dict[str, str]:
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise Cannot(f'"{wrong[0]}" is no label; write KEY=VALUE.')
    return found


def _program(layout: Layout) -> PurePosixPath:
    """Return the program that the unit starts: the current release where there is one, else this one."""
    if layout.current.is_symlink():
        return PROGRAM
    beside = Path(sys.executable).with_name("cloudlunacy")
    found = str(beside) if beside.exists() else shutil.which("cloudlunacy")
    if found is None:
        raise Cannot("the path of this program is not known; install it as docs/installing.md says.")
    return PurePosixPath(Path(found).absolute())


# --- upgrade --------------------------------------------------------------------------------------------------------


def run_upgrade(options: argparse.Namespace) -> int:
    """Bring the agent to another release."""
    layout, systemctl = _places(options)
    if os.geteuid() != 0 and layout.root == Path("/"):
        raise Cannot("only root can do that; run it with sudo.")
    pip = ["--index-url", options.index_url] if options.index_url else []
    if options.find_links:
        pip += ["--no-index", "--find-links", options.find_links]
    releases, machine = Releases(layout, pip), Machine(layout, systemctl, connect_seconds=options.connect_seconds)
    with tempfile.TemporaryDirectory(prefix="cloudlunacy-") as folder:
        release, wheel = _wanted_release(options, layout, releases, Path(folder))
        upgrade(releases, machine, release, wheel, _say)
    return 0


def _wanted_release(
    options: argparse.Namespace, layout: Layout, releases: Releases, folder: Path
) -> tuple[Release, Path | None]:
    if options.wheel is not None:
        return of_wheel(options.wheel), options.wheel
    name = releases.previous() if options.back else releases.named(options.version) if options.version else None
    if name is not None:
        return Release(name, name.rpartition("-")[0]), None
    if options.back:
        raise Cannot("there is no former release.")
    wheel = fetch(AgentFile.load(layout.data_dir), folder)
    release = of_wheel(wheel)
    if options.version not in (None, release.version):
        raise Cannot(f"the control plane has {release.version}; give {options.version} with --wheel.")
    return release, wheel


# --- uninstall ------------------------------------------------------------------------------------------------------


def run_uninstall(options: argparse.Namespace) -> int:
    """Take it away, and only what is ours."""
    layout, systemctl = _places(options)
    machine = Machine(layout, systemctl, remove_deployments=lambda: _remove_deployments(layout, purge=options.purge))
    steps = plan.uninstall(machine.facts(), Removal(options.remove_deployments, options.purge))
    if not steps:
        _say("nothing of an agent is here")
        return 0
    if options.purge and not options.dry_run and not options.yes:
        _ask(steps)
    _do(machine, steps, dry=options.dry_run)
    return 0


def _remove_deployments(layout: Layout, *, purge: bool) -> None:
    from agent.installing.removal import remove_all  # noqa: PLC0415 - drivers take a while to import

    asyncio.run(remove_all(layout.data_dir, volumes=purge))


def _ask(steps: Iterable[Step]) -> None:
    if not sys.stdin.isatty():
        raise Cannot("data would be removed, and nobody is here to be asked. Say --yes if that is meant.")
    for step in steps:
        _say(f"  {step.text}")
    _say("This cannot be undone. Type yes to go on:")
    if sys.stdin.readline().strip() != "yes":
        raise Cannot("nothing was done.")


# --------------------------------------------------------------------------------------------------------------------


def _places(options: argparse.Namespace) -> tuple[Layout, Systemctl]:
    root = options.root.absolute()
    return Layout(root, options.data), Systemctl(root, now=options.now or root == Path("/"))


def _do(machine: Machine, steps: Iterable[Step], *, dry: bool) -> None:
    for step in steps:
        _say(f"would {step.text}" if dry else step.text)
        if not dry:
            machine.do(step)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
