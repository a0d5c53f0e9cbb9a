"""What runs on agents: a container, a process or a MongoDB database (``deployments/<team>/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import EMPTY, Document, Model
from schemas.names import ByteSize, Duration, EnvName, LabelKey, LabelValue, Name, Port, UrlPath
from schemas.secret import SecretEnv, SecretReference
from schemas.service_tls import ServiceTLS

Image = Annotated[
    str,
    StringConstraints(
        pattern=r"^(?:[a-z0-9.-]+(?::[0-9]{1,5})?/)?[a-z0-9._-]+(?:/[a-z0-9._-]+)*"
        r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[a-f0-9]{64})?$",
        max_length=512,
    ),
    Field(description="Container image by tag or digest."),
]
MountPath = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=512)]
Argument = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=4096)]


EnvValue = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=32_768)]


class PortMapping(Model):
    """A port of the workload and the port of the agent at which it answers."""

    name: Name | None = None
    """Needed where a route picks among several ports."""
    container: Port
    host: Port


class Volume(Model):
    """Storage that outlives the container: a named volume, kept on the agent."""

    name: Name
    path: MountPath
    read_only: bool = False


class Resources(Model):
    memory: ByteSize | None = None
    cpus: Annotated[float, Field(gt=0, le=1024)] | None = None
    pids: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class HttpProbe(Model):
    path: UrlPath = "/"
    port: Port
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    """Expected status; without it any below 400."""


class TcpProbe(Model):
    port: Port


class CommandProbe(Model):
    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64)]


class DeploymentHealthCheck(Model):
    """One of ``http``, ``tcp`` and ``command``; ports are the workload's own."""

    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    command: CommandProbe | None = None
    interval: Duration = "10s"
    timeout: Duration = "3s"
    failures: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed probes in a row until the workload counts as unhealthy."""
    start_period: Duration = "30s"

    @model_validator(mode="after")
    def _one_probe(self) -> Self:
        if sum(probe is not None for probe in (self.http, self.tcp, self.command)) != 1:
            raise ValueError("write exactly one of http, tcp and command")
        return self


class Rollout(Model):
    strategy: Literal["recreate", "blue-green"] = "recreate"
    max_unavailable: Annotated[int, Field(ge=1, le=1000)] = 1
    """Agents that may be without the workload at once."""
    deadline: Duration = "5m"
    """Time for one agent to become healthy; after it the last good version comes back."""


class MongoDBUser(Model):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    password: SecretReference
    database: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,63}$")] = "admin"
    role: Literal["read", "readWrite", "dbOwner", "root"] = "readWrite"


class MongoDB(Model):
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")]
    users: Annotated[tuple[MongoDBUser, ...], Field(max_length=64)] = ()
    storage: ByteSize | None = None


class DeploymentSpec(Model):
    type: Literal["container", "process", "mongodb"]
    agents: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    """Agents to run on, by name."""
    agent_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = EMPTY
    """Or: every agent of the team that carries all of these labels."""
    image: Image | None = None
    """For type container."""
    command: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    """Program and arguments. Needed for type process; for type container it replaces the image's command."""
    env: Annotated[dict[EnvName, EnvValue], Field(max_length=256)] = EMPTY
    secrets: Annotated[tuple[SecretEnv, ...], Field(max_length=64)] = ()
    ports: Annotated[tuple[PortMapping, ...], Field(max_length=64)] = ()
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32)] = ()
    resources: Resources = Resources()
    health_check: DeploymentHealthCheck | None = None
    rollout: Rollout = Rollout()
    tls: ServiceTLS | None = None
    """Certificate that the workload serves with."""
    mongodb: MongoDB | None = None
    """For type mongodb."""
    deletion_policy: Literal["retain", "delete"] = "retain"
    """What happens to volumes and databases when the file goes."""

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type == "container" and self.image is None:
            raise ValueError("type container needs image")
        if self.type != "container" and self.image is not None:
            raise ValueError(f"image is for type container, this is type {self.type}")
        if self.type == "process" and not self.command:
            raise ValueError("type process needs command")
        if self.type == "mongodb" and (self.mongodb is None or self.command):
            raise ValueError("type mongodb needs mongodb and takes no command")
        if self.type != "mongodb" and self.mongodb is not None:
            raise ValueError(f"mongodb is for type mongodb, this is type {self.type}")
        if not self.agents and not self.agent_selector:
            raise ValueError("say where it runs: agents or agentSelector")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for what, values in (
            ("agent", list(self.agents)),
            ("host port", [mapping.host for mapping in self.ports]),
            ("port name", [mapping.name for mapping in self.ports if mapping.name is not None]),
            ("volume", [volume.name for volume in self.volumes]),
            ("environment variable", [*self.env, *(secret.env for secret in self.secrets)]),
        ):
            seen: set[object] = set()
            for value in values:
                if value in seen:
                    raise ValueError(f"{what} {value} is listed twice")
                seen.add(value)
        return self


class Deployment(Document):
    kind: Literal["Deployment"]
    spec: DeploymentSpec
