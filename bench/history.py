"""What the history of 2,000 agents costs, with a heartbeat in 20 seconds each, against one hundredth of a core."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Final

from bench.pairs import Row
from reconciler.store.history import History
from schemas.metrics import KEPT_OF_MACHINES

AGENTS: Final = 2_000
PART: Final = 4
"""Only every fourth of them is there, and what they cost is counted four times."""
HEARTBEAT: Final = 20
HOURS: Final = 2
"""So that every resolution but the last is written, folded and pruned."""
START: Final = 1_760_000_400 // 21_600 * 21_600


def measure_history(folder: Path) -> list[Row]:
    """Return the row: seconds of processor time that an hour costs, all threads together."""
    return asyncio.run(_measure(folder))


async def _measure(folder: Path) -> list[Row]:
    now = float(START)
    history = await History.open(folder / "data", clock=lambda: now)
    chance = random.Random(1)
    machine = {name: 1e9 * chance.random() for name in KEPT_OF_MACHINES}
    names = [f"vps-{number}" for number in range(AGENTS // PART)]
    hot, began = 0.0, time.process_time()
    for second in range(HOURS * 3600 + 1200):
        now += 1
        if second < HOURS * 3600:
            metrics = {name: value * chance.uniform(0.9, 1.1) for name, value in machine.items()}
            start = time.process_time()
            for name in names[second % HEARTBEAT :: HEARTBEAT]:
                history.sample(name, now, KEPT_OF_MACHINES, metrics)
            hot += time.process_time() - start
        await history.flush()
        if second % 10 == 0:
            await history.tidy()
    spent = (time.process_time() - began) * PART / HOURS
    size = (folder / "data" / "history.db").stat().st_size
    await history.close()
    beats = AGENTS // PART * HOURS * 3600 / HEARTBEAT
    return [
        Row(
            name=f"an hour of the history of {AGENTS:,} agents",
            against="a hundredth of a core",
            ours=round(spent, 2),
            reference=36.0,
            unit="s",
            ratio=round(spent / 36.0, 2),
            reach=1.0,
            notes=f"{hot / beats * 1e6:.1f} µs of it in the way of each heartbeat",
            rounds=1,
            details={"bytes": size, "agents": AGENTS // PART},
        )
    ]
