"""The rows of 2,000 agents: who gets a message when one changes, what a message costs, what an idle agent costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.agents import measure_fanout, measure_memory
from bench.pairs import Row
from bench.plane import plane, settings
from bench.state_repo import AGENTS_SHARE, BareRepo, tree
from reconciler.agents.documents import WantedDocument

AGENTS: Final = 2_000
ROUNDS: Final = 5


def measure_one(folder: Path) -> list[Row]:
    """Return how many documents go out when the file of one agent of 2,000 changes; a broadcast sends 2,000."""
    return asyncio.run(_one(folder))


async def _one(folder: Path) -> list[Row]:
    files = {
        path: text
        for path, text in tree(AGENTS * AGENTS_SHARE).items()
        if path == "fleet.yaml" or path.startswith("agents/")
    }
    remote = BareRepo(folder / "remote.git", files)
    sent = []
    async with plane(settings(remote.path, folder / "ours", traefik="/nowhere")) as running:
        hub = running.parts._hub  # noqa: SLF001
        publish = hub.publish

        async def counted(documents: Mapping[str, WantedDocument]) -> frozenset[str]:
            sent.append(len(documents))
            return await publish(documents)

        hub.publish = counted  # type: ignore[method-assign]
        await running.loop.reconcile_once()
        if sent != [AGENTS]:
            raise SystemExit(f"{sent} documents instead of {AGENTS}")
        for number in range(ROUNDS):
            path = f"agents/vps-{number * 7}.yaml"
            remote.push({path: files[path].replace("pool: shared", "pool: shared, changed: yes")})
            await running.loop.reconcile_once()
    most = max(sent[1:])
    return [
        Row(
            name=f"one agent of {AGENTS:,} changed",
            against="a broadcast",
            ours=most,
            reference=AGENTS,
            unit="messages",
            ratio=most,
            reach=1,
            rounds=ROUNDS,
        )
    ]


def measure_fan_out(_: Path) -> list[Row]:
    """Return the row of a message to everybody."""
    found = measure_fanout(AGENTS)
    return [
        Row(
            name=f"message to {AGENTS:,} agents",
            against="raw frames written to the transports",
            ours=found["hub_us"],
            reference=found["raw_us"],
            unit="µs an agent",
            ratio=round(found["ratio"], 2),
            reach=2.0,
            notes=f"with signing each document {found['hub_with_signing_us']} µs",
            details=found,
        )
    ]


def measure_memory_per_agent(_: Path) -> list[Row]:
    """Return the row of an idle agent's memory."""
    found = measure_memory(AGENTS)
    return [
        Row(
            name="memory per idle agent",
            against="Starlette's bare WebSocket",
            ours=found["hub_kib"],
            reference=found["bare_kib"],
            unit="KiB",
            ratio=round(found["ratio"], 2),
            reach=1.5,
            details=found,
        )
    ]
