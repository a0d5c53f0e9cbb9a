"""An installation with something to steal: canaries in every secret place, a victim, and a git server to be hostile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from schemas.fleet import Fleet
from tests.support import documents
from tests.support.documents import DOMAIN, team
from tests.support.fleet import Installation
from tests.support.git_repos import BareRepo
from tests.support.git_server import GitServer, git_server
from tests.support.traefik import Backend, Front, backends

ENVIRONMENT_CANARY: Final = "canary-environment-4711"
GIT_TOKEN: Final = "canary-git-token-4712"
WEBHOOK_SECRET: Final = "canary-webhook-secret-4713"
LOGIN: Final = "someone:$2y$05$canary4714sealedvalueu" + "A" * 31
"""A sealed value that Traefik needs, so it stands in the published file and nowhere else."""
SEALED_VALUE: Final = "canary-sealed-value-4715"
VICTIM: Final = f"victim.app.{DOMAIN}"


@dataclass
class Attacked:
    """``victim`` answers for :data:`VICTIM`, ``rival`` is where a rival team would like requests to go."""

    one: Installation
    git: GitServer
    victim: Backend
    rival: Backend
    recipient: str
    tokens: dict[str, str] = field(default_factory=dict)
    """Agent → the token that it enrolled with."""

    @property
    def front(self) -> Front:
        assert self.one.front is not None
        return self.one.front

    def answerer(self, host: str = VICTIM, path: str = "/", **more: Any) -> str:
        """Return the name of the backend that answers, or the status where none does."""
        answer = self.front.get(host, path, **more)
        try:
            return str(answer.json()["backend"])
        except (ValueError, KeyError, TypeError):
            return str(answer.status_code)

    def quarantined(self, files: dict[str, bytes | str | None], **more: Any) -> set[str]:
        """Push, wait until the revision is in service, and return the files that were kept out."""
        found = self.one.status_wait(self.one.repo.commit(files, message="Attack", **more), deadline=90)
        assert found["state"] == "Converged", found
        return {problem["file"] for problem in found["quarantined"] if problem["severity"] == "error"}


def start_files(victim: Backend, rival: Backend, recipient: str) -> dict[str, bytes | str | None]:
    everything = [f"*.app.{DOMAIN}"]
    fleet = documents.fleet(
        team("shop", hostnames=everything, agents=["vps-1", "vps-2"]),
        team("rival", hostnames=[*everything, f"*.rival.{DOMAIN}"], agents=["vps-2"]),
        entryPoints={"tcp": {"raw": "raw"}},
    )
    return {
        "fleet.yaml": fleet,
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2"),
        "routes/shop/victim.yaml": documents.route(
            "victim", VICTIM, backends=[{"agent": "vps-1", "port": victim.port}]
        ),
        "routes/rival/own.yaml": documents.route(
            "own", f"own.rival.{DOMAIN}", backends=[{"agent": "vps-2", "port": rival.port}]
        ),
        "certificates/victim.yaml": documents.certificate("victim", VICTIM),
        "secrets/shop/login.yaml": documents.document(
            "Secret", "login", {"sealed": {"users": seal(LOGIN, [recipient]), "other": seal(SEALED_VALUE, [recipient])}}
        ),
        "routes/shop/private.yaml": documents.route(
            "private",
            backends=[{"agent": "vps-1", "port": victim.port}],
            middlewares=[{"basicAuth": {"secret": {"name": "login", "key": "users"}}}],
        ),
    }


@contextmanager
def attacked(folder: Path, *, traefik: bool = True, **more: Any) -> Iterator[Attacked]:
    """Run ``serve`` on a remote that asks for a token; Traefik and ``serve`` have the canary in their environment."""
    folder.mkdir(exist_ok=True)
    secrets = {"CLOUDLUNACY_GIT_TOKEN_FILE": GIT_TOKEN, "CLOUDLUNACY_WEBHOOK_SECRET_FILE": WEBHOOK_SECRET}
    for name, secret in secrets.items():
        (folder / name).write_text(secret)
    data = folder / "data"
    data.mkdir(mode=0o755)
    recipient = KeyStore(data / "keys").recipient()
    with (
        backends("victim", "rival") as (victim, rival),
        git_server(folder / "srv", username="x-access-token", password=GIT_TOKEN) as git,
    ):
        repo = BareRepo.create(folder / "srv" / "state.git")
        revision = repo.commit(start_files(victim, rival, recipient), message="Start")
        fleet = Fleet.model_validate(json.loads(repo.show("fleet.yaml")))
        canary = {"THREAT_CANARY": ENVIRONMENT_CANARY}
        front = Front(folder / "front", fleet, environment=canary) if traefik else None
        one = Installation(folder, repo, front, repo_url=git.url_of(repo.path), **more)
        one.environment |= {name: str(folder / name) for name in secrets} | canary
        try:
            one.start()
            found = one.status_wait(revision)
            assert found["state"] == "Converged", found
            assert not found["quarantined"], found
            yield Attacked(one, git, victim, rival, recipient)
        finally:
            one.close()
