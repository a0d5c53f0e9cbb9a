"""An agent: a machine that runs apps and databases (``agents/<name>.yaml``)."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.base import Document, Model
from schemas.names import Address, Thumbprint

Capability = Literal["container", "process", "mongodb"]


class Identity(Model):
    """The key by which the agent is known. Enrolment writes it; nobody else needs to."""

    thumbprint: Thumbprint


def _of_one_machine(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a name
        return address
    if parsed.is_link_local:
        raise ValueError(f"{address} is a link-local address, which means another machine on every network")
    if parsed.is_unspecified or parsed.is_multicast:
        raise ValueError(f"{address} is not the address of one machine")
    return address


class AgentSpec(Model):
    address: Annotated[Address, AfterValidator(_of_one_machine)]
    """Where Traefik reaches what runs on the agent."""
    capabilities: Annotated[tuple[Capability, ...], Field(max_length=8)] = ()
    """Kinds of deployments that the agent can run."""
    identity: Identity | None = None
    """Added by enrolment. An agent without it cannot connect."""
    state: Literal["active", "cordoned", "quarantined"] = "active"
    """active; cordoned: keeps what it has, in any version, and gets no new deployment or backend, nor is it selected
    anew; quarantined: may not connect, gets no traffic."""


class Agent(Document):
    kind: Literal["Agent"]
    spec: AgentSpec
