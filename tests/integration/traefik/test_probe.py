"""Which certificate a real Traefik presents, and what is said where it presents none."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from reconciler.desired.overlay import served_certificates
from reconciler.errors import Transient
from reconciler.traefik.api import TraefikAPI
from reconciler.traefik.probe import served_leaf
from tests.support.pairs import FakeAuthority
from tests.support.ports import free_port
from tests.support.traefik import front


def test_the_leaf_of_each_name_is_seen(tmp_path: Path) -> None:
    """Asked for one name after the other at the entry point that the API tells, the front shows each one's leaf."""
    authority = FakeAuthority()
    pairs = {name: authority.pair(host) for name, host in (("one", "one.test"), ("any", "*.any.test"))}

    async def scenario(url: str) -> list[str]:
        api = TraefikAPI(url)
        address = await api.entry_point("websecure")
        assert address is not None
        assert await api.entry_point("unknown") is None
        found = [await served_leaf(address, name) for name in ("one.test", "x.any.test", "other.test")]
        await api.close()
        return found

    with front(tmp_path) as running:
        running.load(served_certificates({name: pair.certificate for name, pair in pairs.items()}))
        one, other, unknown = asyncio.run(scenario(running.api_url))
    assert (one, other) == (pairs["one"].held.fingerprint, pairs["any"].held.fingerprint)
    assert unknown not in (one, other)


def test_who_does_not_answer_is_said_in_time() -> None:
    """Nobody listens, or somebody listens and says nothing: a sentence within the time that was given."""

    async def scenario() -> None:
        with pytest.raises(Transient) as refused:
            await served_leaf(("127.0.0.1", free_port()), "a.test")
        assert refused.value.reason == "ProbeFailed"
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Transient, match=r"within 0\.3 s"):
            await served_leaf(silent.getsockname(), "a.test", seconds=0.3)

    asyncio.run(scenario())
