"""``cloudlunacy deploy`` with nothing simulated: ``serve``, ``agent run``, and a program that is run confined."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import documents
from tests.support.fleet import Installation, installation, run_cli
from tests.support.process_agent import end_all
from tests.support.waiting import wait_for

NAME: Final = "vps-1"
PROGRAM: Final = "echo begun as $$; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
FILES: Final[dict[str, bytes | str | None]] = {
    "fleet.yaml": documents.fleet(documents.team("shop", agents=[NAME]), commands={"exec": ["shop"]}),
    f"agents/{NAME}.yaml": documents.agent(NAME),
    "deployments/shop/web.yaml": documents.document(
        "Deployment",
        "web",
        {"type": "process", "agents": [NAME], "command": ["/bin/sh", "-c", PROGRAM], "env": {"GREETING": "hello"}},
    ),
}


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path / "one", FILES, traefik=False) as running:
        done = running.enrol(NAME)
        assert done.returncode == 0, done.stderr
        running.run_agent(NAME)
        try:
            wait_for(lambda: reason(running) == "Running", 60, what=f"the program\n{running.agent_log(NAME)[-3000:]}")
            yield running
        finally:
            running.close()
            end_all(running.agent_data(NAME))


def reason(one: Installation) -> str:
    [agent] = one.ask("/deployments/shop/web")["agents"]
    return str((agent.get("result") or {}).get("reason"))


def deploy(one: Installation, *words: str, program: tuple[str, ...] = ()) -> tuple[int, str, str]:
    after = ("--", *program) if program else ()
    done = run_cli("deploy", *words, "--data", one.data, *after)
    return done.returncode, done.stdout, done.stderr


def test_what_runs_is_looked_at_and_restarted(one: Installation) -> None:
    """Its log has what it wrote, a program beside it sees what it sees, and a restart makes another instance."""
    code, before, said = deploy(one, "logs", "shop/web")
    assert (code, before.startswith("begun as ")) == (0, True), said
    code, seen, said = deploy(one, "exec", "shop/web", program=("/bin/sh", "-c", "echo $GREETING; exit 5"))
    assert (code, seen) == (5, "hello\n"), said
    code, told, said = deploy(one, "restart", "shop/web")
    assert (code, told.endswith(f"{NAME} | Restarted.\n")) == (0, True), said
    assert reason(one) == "Running"
    [agent] = one.ask("/deployments/shop/web")["agents"]
    assert agent["observed"]["health"] == "healthy"
    code, after, said = deploy(one, "logs", "shop/web")
    assert (code, after.count("begun as ")) == (0, 1), said
