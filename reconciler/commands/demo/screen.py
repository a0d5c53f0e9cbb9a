"""What the demo shows a person once everything is up: what to open, what to try, what to break."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.commands.client import Client
from reconciler.commands.demo import database
from reconciler.commands.demo.bring_up import ADMIN, Demo
from reconciler.commands.demo.folder import shown
from reconciler.commands.demo.ports import HOST
from schemas.login_api import NewLoginLink
from schemas.status import RevisionStatus

_BOLD: Final = "\x1b[1m"
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"
_COMMENT_COLUMN: Final = 82
_EVENTS: Final = "events.analytics.cloudlunacy.test"


@dataclass(frozen=True, slots=True)
class _Section:
    """``lines``: a command, and what it shows."""

    title: str
    lines: tuple[tuple[str, str], ...]


def screen(demo: Demo, status: RevisionStatus, *, colour: bool = False) -> str:
    """Write the whole screen. Every command works from the clone, with the program on PATH.

    Raises:
        Broken, Refused, Transient: when the control plane does not answer what the screen asks it.
    """
    root = shown(demo.folder.root)
    out = [
        "",
        f"The fleet is up, generation {status.generation}. It lies in {root}, its logs in {root}/log. Ctrl-C ends it.",
    ]
    for section in _sections(demo):
        out += ["", f"{_BOLD}{section.title}{_RESET}" if colour else section.title]
        out += [_line(command, comment, colour=colour) for command, comment in section.lines]
    return "\n".join([*out, "", "Below, each push is told stage by stage."])


def _sections(demo: Demo) -> Iterator[_Section]:
    ports = demo.ports
    web, secure = ports.url("web"), ports.front["websecure"]
    data, dynamic = shown(demo.folder.data, demo.folder.work), shown(demo.folder.dynamic, demo.folder.work)
    ca, plane = shown(demo.folder.ca, demo.folder.work), "control plane"
    trusting = f"curl --cacert {ca} --resolve shop.example.test:{secure}:{HOST}"
    commit, push = "git commit -qam", "git push -q"
    yield _Section("In another terminal", ((_entrance(demo), ""),))
    yield _Section("Look at the dashboard, in a browser", (
        (_login_link(demo), "logs you in as administrator: once, within ten minutes"),
        (f"cloudlunacy login --data {data}", "another link; --role viewer, --team shop"),
        (ca, "its authority: a browser warns until it has that file"),
    ))  # fmt: skip
    admin = f"{ADMIN}:{demo.memory.admin_password}"
    yield _Section("Ask Traefik", (
        (f"curl -i -H 'Host: web.app.cloudlunacy.test' {web}", "says what reached the app"),
        (f"curl -H 'Host: balanced.app.cloudlunacy.test' {web}", "3 of 4 go to vps-1; sticky"),
        (f"curl -H 'Host: reports.analytics.cloudlunacy.test' {web}", "another team"),
        (f"curl -u {admin} -H 'Host: admin.app.cloudlunacy.test' {web}", "a sealed secret"),
        (f"{trusting} https://shop.example.test:{secure}", "TLS by the fleet's own authority"),
        (f"openssl s_client -quiet -connect {ports.address('events')} -servername {_EVENTS}", "TCP, an echo"),
        (f"{ports.url('traefik')}/dashboard/", "in a browser"),
    ))  # fmt: skip
    yield _mongodb(demo)
    yield _Section(f"Ask the control plane (SHA-256 of its authority: {demo.target.trust.fingerprint})", (
        (f"curl --cacert {ca} {ports.url(plane)}/readyz", "TLS by its own authority"),
        (f"openssl s_client -brief -connect {ports.address(plane)} -CAfile {ca} </dev/null", "the same"),
        (f"cloudlunacy pki status --data {data}", "the authority"),
    ))  # fmt: skip
    yield _Section("Change something", (
        ("sed -i s/DENY/SAMEORIGIN/ routes/shop/web.yaml", "or open it in an editor"),
        (f"cloudlunacy plan --data {data}", "what it would do"),
        (f"{commit} 'Allow frames' && {push}", "look below, then curl again"),
        (f"cloudlunacy status $(git rev-parse HEAD) --wait --data {data}", "its convergence record"),
    ))  # fmt: skip
    yield _Section("Roll something out: agents run the apps, confined where they can", (
        ("sed -i s/hello/ahoy/ deployments/shop/web.yaml", "another greeting, so another version"),
        (f"{commit} 'Greet otherwise' && {push}", "beside the old one, on another port; then the old one goes"),
        (f"cloudlunacy deploy status shop/web --wait --data {data}", "until it has taken over"),
        (f"cloudlunacy deploy logs shop/web --data {data}", "what it wrote"),
    ))  # fmt: skip
    yield _Section("Break something: what works goes on working", (
        (f"sed -i s/vps-1/vsp-1/ routes/shop/web.yaml && {commit} 'A typo' && {push}", "quarantined"),
        (f"git rm -rq routes && {commit} 'No more routes' && {push}", "held for a person"),
        (f"git revert --no-edit HEAD && {push}", "undoes either"),
        (f"git commit -q --amend -m 'Another past' && {push} --force", "held: history was rewritten"),
        (f"echo broken > {dynamic}", "put right at the next look"),
    ))  # fmt: skip


def _login_link(demo: Demo) -> str:
    with Client(demo.target) as client:
        new = NewLoginLink.model_validate(client.post("/login-links", {"name": "admin", "role": "administrator"}))
    return new.url.get_secret_value()


def _mongodb(demo: Demo) -> _Section:
    if demo.programs.mongod is None:
        return _Section("No MongoDB", ((demo.programs.no_mongod, ""),))
    there = f"--data {shown(demo.folder.data, demo.folder.work)}"
    one = database.uri(demo.folder, demo.target)
    command = "cloudlunacy mongodb"
    return _Section(f"Ask MongoDB through Traefik: {one}", (
        (f"{command} uri {database.NAME} {there} --show-password", "prints it"),
        (f"{command} check {database.NAME} {there} --connect {HOST}", "goes there step by step"),
        (f"{command} check odrers {there}", "says what is wrong"),
        (f"echo '{HOST} {one.host}' | sudo tee -a /etc/hosts", "so that others find the name"),
        (f"mongosh '{one}'", "or any driver"),
    ))  # fmt: skip


def _entrance(demo: Demo) -> str:
    """Return the line that makes the other commands work: into the clone, and the program on PATH."""
    enter = f"cd {shlex.quote(str(demo.folder.work))}"
    programs = Path(sys.executable).parent
    on_path = shutil.which("cloudlunacy")
    if on_path is not None and Path(on_path).parent.resolve() == programs.resolve():
        return enter
    return f'export PATH={shlex.quote(str(programs))}:"$PATH" && {enter}'


def _line(command: str, comment: str, *, colour: bool) -> str:
    if not comment:
        return f"  {command}"
    remark = f"{_DIM}# {comment}{_RESET}" if colour else f"# {comment}"
    return f"  {command.ljust(_COMMENT_COLUMN)}  {remark}"
