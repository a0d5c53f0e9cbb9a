"""What nobody thought of ends no task of ``serve``: all of its parts, put together and run in this process."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from reconciler.agents import certificates, revocation
from reconciler.app import acme_orders, rotation, running
from reconciler.app import certificate as own_certificate
from reconciler.commands import serve_command
from reconciler.housekeeping import Housekeeping
from reconciler.pki import api_tokens
from reconciler.pki.renewal import Source
from reconciler.steps.probing import Probing
from tests.support import documents
from tests.support.git_repos import BareRepo
from tests.support.pairs import FakeAuthority

PAUSES: Final = (
    (certificates, "RETRY_SECONDS", 0.05),
    (revocation, "RETRY_SECONDS", 0.05),
    (rotation, "PAUSES", (0.05,) * 3),
    (own_certificate, "PAUSES", (0.05,) * 3),
    (api_tokens, "LOOK_SECONDS", 0.05),
    (acme_orders, "TICK_SECONDS", 0.05),
    (running, "RESUME_PAUSE", 0.05),
)


class Bugs:
    """Lets each of many methods fail in a way that nobody thought of, as often as it is called, or a few times."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.met: Counter[str] = Counter()

    def into(self, owner: Any, name: str, *, times: int = 1_000_000) -> str:
        """Return the key under which the failures are counted."""
        right, key = getattr(owner, name), f"{type(owner).__name__}.{name}"

        async def failing(*arguments: Any, **more: Any) -> Any:
            if self.met[key] < times:
                self.met[key] += 1
                raise LookupError(f"{key}: nobody thought of that")
            return await right(*arguments, **more)

        self._patch.setattr(owner, name, failing)
        return key


def test_no_task_ends_by_what_nobody_thought_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes on and meets it again, and ``serve`` ends when it is told to."""
    for module, name, value in PAUSES:
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("reconciler.housekeeping.SECONDS", 0.05)
    monkeypatch.setattr("reconciler.observer.SECONDS", 0.05)
    monkeypatch.setattr("reconciler.steps.probing.LOOK_SECONDS", 0.05)
    repo = BareRepo.create(tmp_path / "remote.git")
    repo.commit({"fleet.yaml": documents.fleet()})
    parser = argparse.ArgumentParser()
    serve_command.add_parser(parser.add_subparsers())
    line = ["serve", "--repo", str(repo.path), "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    settings = serve_command.settings_of(parser.parse_args(line))

    async def scenario() -> None:
        bugs, stop = Bugs(monkeypatch), asyncio.Event()
        async with running.control_plane(settings) as plane:
            orders = plane.acme._orders
            orders.suggested({"shop": FakeAuthority().pair("shop.test", source=Source("acme", "https://x"))})
            takes_up = bugs.into(plane._fronts, "take_up", times=2)
            resumes = bugs.into(plane.loop, "resume", times=2)
            lasting = [
                bugs.into(plane._observer, "flush"),
                bugs.into(plane.certificate, "look"),
                bugs.into(plane._certificates, "_find_forgotten"),
                bugs.into(plane.rotations, "look"),
                bugs.into(orders, "look_at_renewals"),
                bugs.into(plane._access.revocations, "_approve"),
                bugs.into(plane._access.tokens, "look"),
                bugs.into(plane.loop, "reconcile_once"),
            ]
            monkeypatch.setattr(Housekeeping, "once", _failing_method(bugs, "Housekeeping.once"))
            monkeypatch.setattr(Probing, "look", _failing_method(bugs, "Probing.look"))
            plane._access.revocations._more.set()
            plane._certificates.revoke(())
            wanted = [takes_up, resumes, "Housekeeping.once", "Probing.look", *lasting]
            task = asyncio.create_task(plane.run(stop))
            with suppress(TimeoutError):
                async with asyncio.timeout(30):
                    while not task.done() and any(bugs.met[key] < 2 for key in wanted):
                        await asyncio.sleep(0.02)
            is_over = task.done()
            stop.set()
            await task
            assert not is_over
            assert [key for key in wanted if bugs.met[key] < 2] == []

    with capture_logs() as said:
        asyncio.run(scenario())
    assert "housekeeping ended by a bug, trying again" in {one["event"] for one in said if one.get("exc_info")}


def _failing_method(bugs: Bugs, key: str) -> Any:
    async def failing(_: object) -> None:
        bugs.met[key] += 1
        raise LookupError(f"{key}: nobody thought of that")

    return failing
