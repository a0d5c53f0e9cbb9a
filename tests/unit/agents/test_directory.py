"""Who is in service, found by name and by address."""

from __future__ import annotations

import pytest

from reconciler.agents.directory import AgentDirectory
from reconciler.errors import Refused
from schemas.agent import Agent


def agent(name: str, address: str) -> Agent:
    document = {"apiVersion": "cloudlunacy/v1", "kind": "Agent", "metadata": {"name": name}}
    return Agent.model_validate({**document, "spec": {"address": address}})


def test_address_names_its_first_agent_until_that_one_leaves() -> None:
    """Of several agents at one address the first in order of name is found; an address without agents has none."""
    directory = AgentDirectory()
    agents = {name: agent(name, address) for name, address in (("b", "10.0.0.1"), ("a", "10.0.0.1"), ("c", "10.0.0.2"))}
    directory.update(agents)
    assert [directory.at(address) for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3")] == ["a", "c", None]
    del agents["a"]
    directory.update(agents)
    assert directory.at("10.0.0.1") == "b"


def test_nobody_is_told_to_enrol_again_before_it_is_known_who_is_in_service() -> None:
    """Right after a start agents are asked to come again; once it is known, nobody is nobody."""
    directory = AgentDirectory()
    with pytest.raises(Refused) as caught:
        directory.thumbprint("vps-1")
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "starting", 1.0)
    directory.update({})

    assert directory.thumbprint("vps-1") is None
