"""A real sshd on loopback with throw-away keys, for remotes over ssh."""

from __future__ import annotations

import getpass
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.waiting import wait_for


@dataclass(frozen=True)
class SshServer:
    """Where it listens and what a client needs."""

    port: int
    user: str
    key: Path
    known_hosts: Path
    wrong_known_hosts: Path
    stranger_key: Path

    def url_of(self, repository: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{repository}"


def make_key(path: Path, *, comment: str = "test") -> Path:
    """Make an Ed25519 key without a passphrase; the public half is beside it with ``.pub``."""
    subprocess.run(
        [require("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path],
        check=True,
        capture_output=True,
    )
    return path


@contextmanager
def ssh_server(directory: Path) -> Generator[SshServer]:
    """Run sshd with its files in ``directory`` until the block ends; only the key that it makes gets in."""
    sshd = require("sshd")
    require("ssh")
    directory.mkdir(mode=0o700)
    keys = {name: make_key(directory / name) for name in ("host", "client", "stranger", "other-host")}
    port = free_port()
    authorized = directory / "authorized_keys"
    authorized.write_text(keys["client"].with_suffix(".pub").read_text())
    config = directory / "sshd_config"
    lines = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": str(keys["host"]),
        "AuthorizedKeysFile": str(authorized),
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    config.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's place for separated privileges
    process = subprocess.Popen(tied([sshd, "-D", "-e", "-f", config]), stderr=subprocess.PIPE)
    try:
        wait_for(lambda: _listens(port) or process.poll() is not None, 10, what="sshd listening")
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        yield SshServer(
            port,
            getpass.getuser(),
            keys["client"],
            _known_hosts(directory / "known_hosts", port, keys["host"]),
            _known_hosts(directory / "wrong_known_hosts", port, keys["other-host"]),
            keys["stranger"],
        )
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def _known_hosts(path: Path, port: int, key: Path) -> Path:
    kind, public, *_ = key.with_suffix(".pub").read_text().split()
    path.write_text(f"[127.0.0.1]:{port} {kind} {public}\n")
    return path


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
