"""Who holds which secret: canaries in every secret place of a running installation, looked for everywhere (row 20).

The installation is used: agents enrol and run, CI asks with its token, webhooks come with the right and the wrong
signature, the remote refuses, commands fail, keys are sealed under a passphrase, the process is killed with a stack
dump. Then every file below its directory, every git object, every answer and every process is searched.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import attacked as support
from tests.support.attacked import Attacked, attacked
from tests.support.fleet import run_cli
from tests.support.git_repos import git
from tests.support.process_list import process_arguments
from tests.support.tokens import b64
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(400)
"""Seconds: the installation is used for as long as ten others."""
PASSPHRASE: Final = "canary-passphrase-4716"
PUBLISHED: Final = ("front/*.yml", "front/*.json", "front/*/*.yml", "front*")
"""What Traefik reads, and what is written beside it before it is renamed."""
BELONGS: Final[Mapping[str, tuple[str, ...]]] = {
    # canary → where it may be, as patterns; everywhere else is a leak
    "git token": ("CLOUDLUNACY_GIT_TOKEN_FILE",),
    "webhook secret": ("CLOUDLUNACY_WEBHOOK_SECRET_FILE",),
    "passphrase": ("passphrase",),
    "environment": ("environ of *",),
    "sealed value": (),
    "login": PUBLISHED,
    "token of ci": ("ci.token",),
    "enrolment token *": (),
    "key operator-current": ("data/credentials.json",),
    "key default-certificate": ("data/keys/default-certificate.pem", *PUBLISHED),
    "key certificates/*": PUBLISHED,
    "key agent vps-*": ("agent-vps-*/key.pem",),
    "key certificate vps-*": ("agent-vps-*/*/key.pem", "agent-vps-*/*/*/key.pem"),
    "key *": (),
    "age identity": (),
}
MARKS: Final = (b"PRIVATE KEY-----", b"AGE-SECRET-KEY-1")
MARKS_BELONG: Final = (
    *PUBLISHED, "data/credentials.json", "data/keys/default-certificate.pem", "agent-vps-*",
)  # fmt: skip
"""Where a key may be in clear, whoever's it is."""


@dataclass
class Search:
    """Canaries, each in the forms in which it may lie somewhere, and what is to be searched."""

    canaries: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    places: dict[str, bytes] = field(default_factory=dict)

    def plant(self, name: str, secret: str) -> None:
        """A text, also as base64 carries it."""
        raw = secret.encode()
        self.canaries[name] = (raw, *(b64(b"x" * shift + raw)[4:-4].encode() for shift in range(3)))

    def plant_key(self, name: str, pem: bytes) -> None:
        """A private key: a line of its PEM, and its number as bytes, hex and base64url (a JWK's ``d``)."""
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value.to_bytes(key.key_size // 8, "big")
        lines = [line for line in pem.splitlines() if line and not line.startswith(b"-")]
        self.canaries[name] = (lines[1], number, number.hex().encode(), b64(number).encode())

    def found(self) -> set[tuple[str, str]]:
        """Where each canary was found."""
        return {
            (name, place)
            for place, content in self.places.items()
            for name, forms in self.canaries.items()
            if any(form in content for form in forms)
        }


def belongs(canary: str, place: str) -> bool:
    patterns = next(allowed for name, allowed in BELONGS.items() if fnmatch.fnmatch(canary, name))
    return any(fnmatch.fnmatch(place, pattern) for pattern in patterns)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    """Use an installation in every way that touches a secret, then gather all that it left."""
    folder = tmp_path_factory.mktemp("canaries")
    with process_arguments() as arguments, attacked(folder, environment={"PYTHONFAULTHANDLER": "1"}) as plane:
        search = Search()
        plant(search, plane)
        said = use(search, plane, folder)
        gather(search, plane, folder)
        search.places["output of commands"] = said.encode()
        search.places["command lines"] = "\n".join(arguments).encode()
        yield search


def plant(search: Search, plane: Attacked) -> None:
    """What was there before anybody used it; the keys are still in clear."""
    search.plant("git token", support.GIT_TOKEN)
    search.plant("webhook secret", support.WEBHOOK_SECRET)
    search.plant("environment", support.ENVIRONMENT_CANARY)
    search.plant("sealed value", support.SEALED_VALUE)
    search.plant("login", support.LOGIN)
    search.plant("passphrase", PASSPHRASE)
    one = plane.one
    for name in ("vps-1", "vps-2"):
        token = one.token(name)
        search.plant(f"enrolment token {name}", token.partition(".")[2])
        path = one.folder / "enrolment.token"
        path.write_text(token)
        done = run_cli(
            *("agent", "enrol", "--server", one.url, "--token-file", str(path), "--name", name, "--data"),
            *(one.agent_data(name), "--address", "127.0.0.1", "--ca-sha256", one.ca_sha256),
        )
        assert done.returncode == 0, done.stderr
        path.unlink()
        one.run_agent(name)
        one.wait_connected(name)
        search.plant_key(f"key agent {name}", (one.agent_data(name) / "key.pem").read_bytes())
        (held,) = {path.resolve() for path in one.agent_data(name).rglob("*/key.pem")}
        search.plant_key(f"key certificate {name}", held.read_bytes())
    keys = one.data / "keys"
    for path in (path for path in keys.rglob("*") if path.is_file()):
        content, name = path.read_bytes(), str(path.relative_to(keys)).removesuffix(".pem")
        if blocks := re.findall(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", content, re.DOTALL):
            search.plant_key(f"key {name}", blocks[0])
        elif b"AGE-SECRET-KEY-1" in content:
            search.plant("age identity", content.decode().strip()[-40:])


def use(search: Search, plane: Attacked, folder: Path) -> str:
    """Use every secret, rightly and wrongly; return what commands said."""
    one, said = plane.one, []
    ci = one.post("/tokens", {"kind": "ci", "scopes": ["read", "operate"]}).json()["token"]
    search.plant("token of ci", ci.partition(".")[2])
    (folder / "ci.token").write_text(ci)
    (folder / "passphrase").write_text(f"{PASSPHRASE}\n")
    one.stop()
    one.environment["CLOUDLUNACY_KEY_PASSPHRASE_FILE"] = str(folder / "passphrase")
    one.start()
    server = ("--server", one.url, "--ca-file", str(one.ca))
    for token in (ci, ci[:-1] + "!"):
        (folder / "ci.token").write_text(token)
        for words in (["status"], ["plan", str(folder)]):
            done = run_cli(*words, *server, env={"CLOUDLUNACY_TOKEN_FILE": str(folder / "ci.token")})
            said += [done.stdout, done.stderr]
    (folder / "ci.token").write_text(ci)
    for authorization in (f"Bearer {ci}x", f"DPoP {ci}", f"Basic {ci}", ci):
        assert one.client.get("/api/v1/status", headers={"Authorization": authorization}).status_code == 401
    assert one.client.post("/api/v1/tokens", json={"token": ci}, headers=one.headers()).status_code == 422
    for secret in (support.WEBHOOK_SECRET, "wrong"):
        signature = hmac.new(secret.encode(), b"{}", hashlib.sha256).hexdigest()
        one.client.post("/webhooks/git", content=b"{}", headers={"X-Hub-Signature-256": f"sha256={signature}"})
        one.client.post("/webhooks/git", content=b"{}", headers={"X-Gitlab-Token": support.WEBHOOK_SECRET + "x"})
    plane.one.repo.install_hook("pre-receive", "exit 1")
    one.post("/agents/vps-1/revocation", {"quarantine": True})
    (one.repo.path / "hooks" / "pre-receive").unlink()
    wrong = folder / "wrong"
    wrong.write_text("another passphrase of somebody")
    for command, variables in (
        (("doctor", "--data", str(one.data)), one.environment),
        (("pki", "status", "--data", str(one.data)), one.environment),
        (("pki", "status", "--data", str(one.data)), {"CLOUDLUNACY_KEY_PASSPHRASE_FILE": str(wrong)}),
        (("pki", "status", "--data", str(one.data)), {"CLOUDLUNACY_KEY_FILE": str(folder / "passphrase")}),
        (("agent", "status", "--data", str(one.agent_data("vps-2"))), {}),
        (("token", "list", "--data", str(one.data)), {}),
    ):
        done = run_cli(*command, env=variables)
        said += [done.stdout, done.stderr]
    wait_for(lambda: git("-C", one.repo.path, "log", "--oneline", "main").count("Quarantine agent") == 1, 60)
    return "\n".join(said)


def gather(search: Search, plane: Attacked, folder: Path) -> None:
    """Everything that there is to search; the processes end with a dump of their stacks."""
    one, places = plane.one, search.places
    for path, operations in one.client.get("/openapi.json").json()["paths"].items():
        if "get" in operations and path != "/api/v1/stream":
            answer = one.client.get(re.sub("{[a-z]+}", "newest", path), headers=one.headers())
            places[f"GET {path}"] = answer.content + repr(answer.headers).encode()
    assert one.process is not None
    for name, process in (("serve", one.process), ("traefik", plane.front.process)):
        places[f"environ of {name}"] = Path(f"/proc/{process.pid}/environ").read_bytes()
        places[f"arguments of {name}"] = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    places["limits of serve"] = Path(f"/proc/{one.process.pid}/limits").read_bytes()
    os.kill(one.process.pid, signal.SIGABRT)
    one.process.wait(20)
    assert "Fatal Python error: Aborted" in one.log()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            places[str(path.relative_to(folder))] = path.read_bytes()
    for repository in (one.repo.path, one.data / "mirror" / "repository.git"):
        objects = git("-C", repository, "cat-file", "--batch", "--batch-all-objects", "--unordered")
        places[f"objects of {repository.relative_to(folder)}"] = objects.encode("utf-8", "surrogateescape")


def test_every_canary_is_only_where_it_belongs(search: Search) -> None:
    """The table above is all that was found."""
    leaks = sorted((name, place) for name, place in search.found() if not belongs(name, place))
    assert leaks == []


def test_the_search_finds_what_is_there(search: Search) -> None:
    """Each canary that has a place was found in it; places of every kind were searched."""
    found = {name for name, _ in search.found()}
    placed = {name for name in search.canaries if next(a for n, a in BELONGS.items() if fnmatch.fnmatch(name, n))}
    unused = {name for name in placed if "cloudlunacy__fronts" in name}  # no backend here asks the front who it is
    assert placed - found - unused == set()
    assert len(search.canaries) >= 20
    kinds = ("data/state.db*", "data/outbox.db*", "data/cache.db*", "objects of *", "serve.log", "agent-vps-2.log",
             "GET /api/v1/*", "GET /metrics", "front/*", "environ of serve", "command lines")  # fmt: skip
    assert [kind for kind in kinds if not any(fnmatch.fnmatch(place, kind) for place in search.places)] == []
    assert b"Quarantine agent vps-1" in search.places["objects of srv/state.git"]


def test_no_key_of_anybody_is_in_clear_elsewhere(search: Search) -> None:
    """Keys that nobody planted, such as those of renewed certificates, are in their places too."""
    marked = [place for place, content in search.places.items() if any(mark in content for mark in MARKS)]
    assert [place for place in marked if not any(fnmatch.fnmatch(place, one) for one in MARKS_BELONG)] == []


def test_a_crash_leaves_no_image_of_the_memory(search: Search) -> None:
    """The keys are in it in clear, so serve allows none."""
    (line,) = [line for line in search.places["limits of serve"].splitlines() if line.startswith(b"Max core file size")]
    assert line.split()[4:6] == [b"0", b"0"]
