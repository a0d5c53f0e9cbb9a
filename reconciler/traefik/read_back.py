"""Ask the live Traefik what it really loaded.

1. Poll for the generation's marker: one small request, whatever the size of the fleet.
2. Once it is there, the counts of :meth:`TraefikAPI.overview` say whether anything is disabled.
3. Only where they do, the disabled objects are listed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from reconciler.errors import Transient
from reconciler.traefik.api import ObjectFailure, TraefikAPI
from reconciler.traefik.publish import Named

SILENCE_SECONDS: Final = 2.0
_SHORTEST: Final = 0.01
_LONGEST: Final = 0.1
_SHARE: Final = 0.05
"""Each pause is this share of the time waited so far, so polling adds at most 5 % to what a reload takes."""
PATIENCE: Final = 0.8
"""Share of the former reload's time in which the next one is left alone: answering takes time from loading."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """``loaded``: the generation is in service; ``failures``: objects that are not; ``reason``: why not loaded."""

    loaded: bool
    failures: tuple[ObjectFailure, ...] = ()
    reason: str = ""
    reachable: bool = True
    """False: the API does not answer, so nothing is known."""
    seconds: float = field(default=0.0, compare=False)
    """How long it took to load."""


async def read_back(
    api: TraefikAPI, wanted: Named, deadline: float, *, silence: float = SILENCE_SECONDS, former: float = 0.0
) -> ReadBack:
    """Wait up to ``deadline`` seconds until Traefik serves ``wanted``. Raises nothing; failures are the answer.

    ``silence``: seconds after which an API that has not answered once is taken to be away; ``former``: how long the
    reload before took.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    trouble, answered = "", False
    await asyncio.sleep(min(PATIENCE * former, deadline))
    while True:
        try:
            if await api.has_loaded(*wanted):
                return ReadBack(loaded=True, seconds=clock() - start, failures=await api.failures())
            trouble, answered = "", True
        except Transient as error:
            trouble = error.message
        waited = clock() - start
        # one that did answer may only be busy: a reload of 10,000 routes takes all that two cores have
        if trouble and waited >= (deadline if answered else min(silence, deadline)):
            return ReadBack(loaded=False, reason=trouble, reachable=False)
        if waited >= deadline:
            return await _still(api, wanted.generation, deadline)
        await asyncio.sleep(min(_LONGEST, max(_SHORTEST, waited * _SHARE), deadline - waited))


async def _still(api: TraefikAPI, generation: int, deadline: float) -> ReadBack:
    try:
        running = await api.generation()
    except Transient as error:
        return ReadBack(loaded=False, reason=error.message, reachable=False)
    what = f"still runs generation {running}" if running is not None else "runs none of our generations"
    if running == generation:
        what = f"runs a generation {running} that is not this one: another control plane's, or one from before a loss"
    reason = (
        f"Traefik did not load generation {generation} within {deadline:g} s and {what}. "
        "A file that it cannot read stops it from loading any: see its log for providerName=file."
    )
    return ReadBack(loaded=False, reason=reason)
