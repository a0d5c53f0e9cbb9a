"""A value of a secret reaches the program that names it, a changed one brings a new version, and nobody else has it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import pytest

from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from tests.integration.served.conftest import Served
from tests.support import documents
from tests.support.two_machines import AGENT, Site, app, files_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

# the page is a digest: the value itself stands in no image, command, page or log
SERVE: Final = (
    "trap 'exit 0' TERM; printf %s \"$TOKEN\" | sha256sum | cut -c1-64 > /tmp/index.html; "
    "httpd -p 8080 -h /tmp & while :; do sleep 1 & wait $!; done"
)
FIRST, SECOND = "canary-value-5e1f-first", "canary-value-5e1f-second"


def files(site: Site, value: str) -> dict[str, bytes | str | None]:
    recipient = KeyStore(site.one.data / "keys").recipient()
    sealed = {"sealed": {"token": seal(value, [recipient])}}
    uses = [{"env": "TOKEN", "secret": "web", "key": "token"}]
    return {
        "fleet.yaml": documents.fleet(documents.team("shop", agents=[AGENT]), recipients=[recipient]),
        "secrets/shop/web.yaml": documents.document("Secret", "web", sealed),
        **files_of("web", app(command=["sh", "-c", SERVE], secrets=uses)),
    }


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def who_has(folder: Path, value: str) -> list[Path]:
    """Return the files below a folder in which a value stands in clear."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if value.encode() in path.read_bytes()]


def test_a_value_reaches_its_program_and_nobody_else(served: Served) -> None:
    """From a push: the program has it, after another push the changed one; no log, store, document or file of the
    control plane or the agent has either; an agent that starts without its control plane still has it.
    """

    def scenario(site: Site) -> None:
        site.one.push(files(site, FIRST))
        site.wait_for_page(digest(FIRST))
        revision = site.one.push(files(site, SECOND), "Change the value")
        site.wait_for_page(digest(SECOND))
        assert site.one.status_wait(revision)["state"] == "Converged"
        assert who_has(site.one.folder, FIRST) == []
        assert who_has(site.one.folder, SECOND) == []
        site.one.kill()
        site.kill_agent()
        site.machines.engine.remove_containers()
        site.start_agent(wait=False)
        site.wait_for_containers(("web", "web:1", "running"))
        site.one.start()
        site.wait_for_page(digest(SECOND))

    served(scenario)
