"""What the demo shows a person once everything is up: what to open, what to try, what to break."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.commands.demo.bring_up import ADMIN, Demo
from reconciler.commands.demo.ports import HOST, Ports
from schemas.status import RevisionStatus

MONGODB_HOST: Final = "vps-1.mongodb.cloudlunacy.test"
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"


def mongodb_uri(ports: Ports) -> str:
    """Return the address of the example's database, through Traefik."""
    options = "tls=true&tlsAllowInvalidCertificates=true&directConnection=true"
    return f"mongodb://{MONGODB_HOST}:{ports.front['mongodb']}/?{options}"


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    lines: tuple[str, ...]


def screen(demo: Demo, status: RevisionStatus, *, colour: bool = False) -> str:
    """Write the whole screen."""
    root = _shown(demo.folder.root)
    out = [
        f"\nThe fleet is up: generation {status.generation}, all of it in {root}, logs in {root}/log. Ctrl-C ends it."
    ]
    for section in _sections(demo):
        title = f"{_BOLD}{section.title}{_RESET}" if colour else section.title
        out += ["", title, *(f"  {line}" for line in section.lines)]
    return "\n".join([*out, "", "Each push is told below, stage by stage.", ""])


def approve_command(demo: Demo) -> str:
    """Return the command that lets a held plan through; the checksum is to be appended."""
    return f"{_program()} approve --data {_shown(demo.folder.data)}"


def _sections(demo: Demo) -> Iterator[_Section]:
    ports, work, data = demo.ports, _shown(demo.folder.work), _shown(demo.folder.data)
    web, secure, cloudlunacy = ports.url("web"), ports.front["websecure"], _program()
    yield _Section("Ask Traefik", (
        f"curl -i -H 'Host: web.app.cloudlunacy.test' {web}",
        f"curl -H 'Host: balanced.app.cloudlunacy.test' {web}          # 3 of 4 on vps-1, sticky",
        f"curl -H 'Host: reports.analytics.cloudlunacy.test' {web}     # another team",
        f"curl -u {ADMIN}:{demo.memory.admin_password} -H 'Host: admin.app.cloudlunacy.test' {web}   # a sealed secret",
        f"curl -k --resolve shop.example.test:{secure}:{HOST} https://shop.example.test:{secure}   # TLS",
        f"openssl s_client -quiet -connect {ports.address('events')} -servername events.analytics.cloudlunacy.test",
        f"open {ports.url('traefik')}/dashboard/   # and {ports.url('control plane')}/openapi.json",
    ))  # fmt: skip
    if demo.programs.mongod is not None:
        yield _Section("MongoDB through Traefik", (
            f"{_shown(Path(sys.executable))} -m reconciler.commands.demo.ping '{mongodb_uri(ports)}'",
            f"mongosh '{mongodb_uri(ports)}'",
            f"   mongosh and other clients need the name: echo '{HOST} {MONGODB_HOST}' | sudo tee -a /etc/hosts",
            "   No password is asked for yet, and TLS ends at Traefik: both come with deployments and certificates.",
        ))  # fmt: skip
    else:
        yield _Section("No MongoDB", (demo.programs.no_mongod,))
    commit = f"git -C {work} commit -qam"
    push = f"git -C {work} push -q"
    yield _Section("Change something", (
        f"sed -i s/DENY/SAMEORIGIN/ {work}/routes/shop/web.yaml   # or open it in an editor",
        f"{cloudlunacy} plan {work} --data {data}",
        f"{commit} 'Allow frames' && {push}",
        f"{cloudlunacy} status --data {data} --wait",
    ))  # fmt: skip
    yield _Section("Break something: what worked goes on working", (
        f"sed -i s/vps-1/vsp-1/ {work}/routes/shop/web.yaml && {commit} Typo && {push}",
        f"git -C {work} revert --no-edit HEAD && {push}   # undo",
        f"git -C {work} rm -rq routes && {commit} 'No more routes' && {push}   # held, until it is approved",
        f"echo broken > {_shown(demo.folder.dynamic)}   # put right at the next look",
    ))  # fmt: skip


def _program() -> str:
    """Return how this command is called here: its name where the PATH has it, else its path."""
    beside = Path(sys.executable).parent / "cloudlunacy"
    on_path = shutil.which("cloudlunacy")
    if on_path is not None and Path(on_path).resolve() == beside.resolve():
        return "cloudlunacy"
    return _shown(beside) if beside.is_file() else f"{_shown(Path(sys.executable))} -m reconciler"


def _shown(path: Path) -> str:
    """Return the path as seen from here, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
