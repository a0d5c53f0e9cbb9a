"""The demo's state repo: a bare remote made from ``state-repo-example``, and a clone to edit in.

The example's sealed values are sealed to a key that nobody has, so they are sealed anew, to the control plane of this
demo. Ports that are taken on this machine are replaced. Both edits keep the comments.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from reconciler.commands.demo import deployments
from reconciler.commands.demo.folder import Folder
from reconciler.errors import Broken
from reconciler.package_data import data_directory
from reconciler.pki.sealing import seal

BRANCH: Final = "main"
AUTHOR: Final = ("Demo", "demo@cloudlunacy.test")
SECONDS: Final = 60.0
_PORT_KEYS: Final = frozenset({"port", "host", "container"})
"""Keys under which a route or a deployment names a port of an agent."""


class StateRepo:
    """The remote and the clone in the folder."""

    def __init__(self, folder: Folder, git: Path) -> None:
        self._folder = folder
        self._git = git

    def create(
        self,
        *,
        moved: Mapping[int, int],
        recipient: str,
        values: Mapping[str, str],
        webhook: str,
        ca: Path,
        without: Sequence[str] = (),
    ) -> None:
        """Make both, with one commit. ``values`` are the secrets by ``<name>.<key>``; others get random ones.

        ``without``: files of the example that are left out.

        ``webhook`` is told of each push; ``ca`` will hold the roots (PEM) to trust there.

        Raises:
            Broken: when git fails.
        """
        work, remote = self._folder.work, self._folder.remote
        shutil.copytree(data_directory("state-repo-example"), work)
        deployments.place_program(self._folder)
        for name, change in deployments.run_here(self._folder).items():
            self.edit(name, change)
        for name in without:
            (work / name).unlink()
        for name, text in deployments.texts(self._folder).items():
            (work / name).write_text(text, encoding="utf-8")
        self.edit("fleet.yaml", lambda fleet: _trust(fleet, recipient))
        for path in sorted(work.glob("secrets/*/*.yaml")):
            self.edit(path.relative_to(work).as_posix(), lambda secret: _seal_all(secret, values, recipient))
        if moved:
            for path in [*sorted(work.glob("routes/*/*.yaml")), *sorted(work.glob("deployments/*/*.yaml"))]:
                self.edit(path.relative_to(work).as_posix(), lambda document: _move_ports(document, moved))
        self._run("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(remote))
        self._run("init", "--quiet", f"--initial-branch={BRANCH}", str(work))
        for name, value in {"user.name": AUTHOR[0], "user.email": AUTHOR[1], "commit.gpgSign": "false"}.items():
            self._in_work("config", name, value)
        self._in_work("remote", "add", "origin", str(remote))
        self._in_work("add", "--all")
        self._in_work("commit", "--quiet", "--message", "Begin the fleet from the example")
        self._in_work("push", "--quiet", "--set-upstream", "origin", BRANCH)
        # whatever the settings of the person who pushes say about hooks
        self._run("--git-dir", str(remote), "config", "core.hooksPath", str(remote / "hooks"))
        _write_hook(remote / "hooks" / "post-receive", webhook, self._folder.webhook_secret, ca)

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Change one document of the clone; comments and order stay."""
        path = self._folder.work / name
        yaml = YAML(typ="rt", pure=True)
        yaml.preserve_quotes = True
        yaml.width = 120
        yaml.brace_single_entry_mapping_in_flow_sequence = True
        yaml.indent(mapping=2, sequence=4, offset=2)
        document = yaml.load(path)
        change(document)
        yaml.dump(document, path)

    def pull(self) -> str:
        """Take up what the remote has; return its newest commit."""
        self._in_work("pull", "--quiet", "--rebase", "origin", BRANCH)
        return self._in_work("rev-parse", "HEAD")

    def push(self, message: str) -> str:
        """Commit every change and push it, as a person would; return the commit."""
        self._in_work("commit", "--quiet", "--all", "--message", message)
        self._in_work("push", "--quiet", "origin", f"HEAD:{BRANCH}")
        return self._in_work("rev-parse", "HEAD")

    def head(self) -> str:
        """Return the remote's newest commit."""
        return self._run("--git-dir", str(self._folder.remote), "rev-parse", BRANCH)

    def _in_work(self, *arguments: str) -> str:
        return self._run("-C", str(self._folder.work), *arguments)

    def _run(self, *arguments: str) -> str:
        """Run git without any settings of this machine or its user, so that the demo is the same everywhere."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder.root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
        }
        try:
            finished = subprocess.run(
                [self._git, *arguments],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=SECONDS,
                check=False,
                env=environment,
                cwd=self._folder.root,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Broken(f"git does not run: {error}.") from None
        if finished.returncode:
            words = finished.stderr.decode("utf-8", "replace").strip()
            raise Broken(f"git {' '.join(arguments[:4])} … failed: {words}")
        return finished.stdout.decode("utf-8", "replace").strip()


def htpasswd(user: str, password: str) -> str:
    """Return a line of an htpasswd file. SHA-1 is what the standard library has; the password is random and local."""
    digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return f"{user}:{{SHA}}{base64.b64encode(digest).decode()}"


def _trust(fleet: Any, recipient: str) -> None:  # noqa: ANN401 - a document of ruamel's
    recipients = fleet["spec"]["recipients"]
    recipients[0] = recipient  # in place: the comments around it hang on it
    del recipients[1:]


def _seal_all(secret: Any, values: Mapping[str, str], recipient: str) -> None:  # noqa: ANN401 - a document of ruamel's
    sealed = secret["spec"]["sealed"]
    for key in sealed:
        value = values.get(f"{secret['metadata']['name']}.{key}") or secrets.token_urlsafe(24)
        sealed[key] = LiteralScalarString(seal(value, [recipient]))


def _move_ports(node: Any, moved: Mapping[int, int]) -> None:  # noqa: ANN401 - a document of ruamel's
    if isinstance(node, list):
        for item in node:
            _move_ports(item, moved)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _PORT_KEYS and isinstance(value, int):
                node[key] = moved.get(value, value)
            else:
                _move_ports(value, moved)


def _write_hook(path: Path, url: str, secret: Path, ca: Path) -> None:
    command = [sys.executable, "-P", "-m", "reconciler.commands.demo.hook", url, str(secret), str(ca)]
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!/bin/sh\n# Tells the control plane of a push, as a git host does.\nexec {shlex.join(command)}\n"
    )
    path.chmod(0o755)
