"""An agent: a machine that runs apps and databases (``agents/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Document, Model
from schemas.names import Address, Thumbprint

Capability = Literal["container", "process", "mongodb"]


class Identity(Model):
    """The key by which the agent is known. Enrolment writes it; nobody else needs to."""

    thumbprint: Thumbprint


class AgentSpec(Model):
    address: Address
    """Where Traefik reaches what runs on the agent."""
    capabilities: Annotated[tuple[Capability, ...], Field(max_length=8)] = ()
    """Kinds of deployments that the agent can run."""
    identity: Identity | None = None
    """Added by enrolment. An agent without it cannot connect."""
    state: Literal["active", "cordoned", "quarantined"] = "active"
    """active; cordoned: keeps what it has, takes nothing new; quarantined: may not connect, gets no traffic."""


class Agent(Document):
    kind: Literal["Agent"]
    spec: AgentSpec
