"""What is written down, and how often."""

from __future__ import annotations

import asyncio

from reconciler.access.audit import DENIALS, REFUSAL_SECONDS, REFUSALS, Audit
from tests.support.memory_store import MemoryStore
from tests.support.tokens import NOW


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def told(store: MemoryStore) -> list[str]:
    return [event.message for event in store.disk.events]


def test_strangers_do_not_fill_the_timeline() -> None:
    """A few refusals are told, then one in a minute, with how many there were."""

    async def main() -> None:
        store, clock = MemoryStore(), Clock()
        audit = Audit(store, clock=clock)
        for _ in range(1000):
            audit.refused("No such link.\n\x1b[31m")
        await audit.written()
        assert told(store) == [r"No such link.\n\x1b[31m"] * REFUSALS
        clock.now += REFUSAL_SECONDS
        audit.refused("No such link.")
        await audit.written()
        assert told(store)[-1] == f"No such link. ({1000 - REFUSALS:,} more since the last that is shown)"
        assert {(event.type, event.severity, event.subject) for event in store.disk.events} == {
            ("LoginRefused", "warning", "login")
        }

    asyncio.run(main())


def test_the_same_denial_is_told_once() -> None:
    """Whatever names stand in the path; another caller, method or endpoint is another denial; all have a bound."""

    async def main() -> None:
        store, clock = MemoryStore(), Clock()
        audit = Audit(store, clock=clock)
        for number in range(50):
            audit.denied("person:eve", "POST", f"/api/v1/agents/{number}/drain", "no", endpoint="drain")
        await audit.written()
        assert told(store) == ["person:eve may not POST /api/v1/agents/0/drain: no"]
        audit.denied("person:bob", "POST", "/api/v1/agents/0/drain", "no", endpoint="drain")
        await audit.written()
        assert len(told(store)) == 2
        for number in range(200):
            audit.denied(f"ci:{number}", "POST", "/x", "no")
        await audit.written()
        assert len(told(store)) == DENIALS

    asyncio.run(main())


def test_a_full_queue_is_counted() -> None:
    """What cannot be written down yet costs no memory, and is not forgotten."""

    async def main() -> None:
        store, clock = MemoryStore(), Clock()
        audit = Audit(store, clock=clock)
        for number in range(150):
            clock.now += REFUSAL_SECONDS
            audit.refused(f"{number}")
        await audit.written()
        assert len(told(store)) == 100
        clock.now += REFUSAL_SECONDS
        audit.refused("last")
        await audit.written()
        assert told(store)[-1].startswith("last (50 more")

    asyncio.run(main())
