"""What runs on agents: a container, a process or a MongoDB database (``deployments/<team>/<name>.yaml``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.base import EMPTY, Document, Model
from schemas.names import AbsolutePath, ByteSize, Duration, EnvName, LabelKey, LabelValue, Name, Port, UrlPath, seconds
from schemas.secret import SecretEnv, SecretFile, SecretReference, SecretUse
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


LARGEST_ID: Final = 2**31 - 1
LONGEST_GRACE: Final = 600.0
"""Seconds."""
SHORTEST_BACKUP: Final = 60.0
"""Seconds between two backups."""


def _ids_exist(user: str) -> str:
    if any(int(part) > LARGEST_ID for part in user.split(":")):
        raise ValueError(f"ids of users and groups end at {LARGEST_ID}")
    return user


def _is_short(grace: str) -> str:
    if not 1 <= seconds(grace) <= LONGEST_GRACE:
        raise ValueError("a grace lasts from 1s to 10m")
    return grace


User = Annotated[
    str,
    StringConstraints(pattern=r"^(?:0|[1-9][0-9]{0,9})(?::(?:0|[1-9][0-9]{0,9}))?$"),
    AfterValidator(_ids_exist),
    Field(description="Id of a user, and of a group after a colon, as numbers in quotes."),
]
Grace = Annotated[Duration, AfterValidator(_is_short)]


class PortMapping(Model):
    """A port of the workload and the port of the agent at which it answers."""

    name: Name | None = None
    """Needed where a route picks among several ports."""
    container: Port
    host: Port


class Volume(Model):
    """Storage that outlives the container: a named volume, kept on the agent, or what the server's owner shares."""

    name: Name
    path: MountPath
    read_only: bool = False
    shared: Name | None = None
    """A directory of the server, by the name that its owner gave it in the agent's settings; never a path."""


class Tmpfs(Model):
    """A directory in memory, which ends with the container."""

    path: AbsolutePath
    size: ByteSize = "64Mi"


class Registry(Model):
    """Whom the image is fetched as, from the registry that its name begins with."""

    username: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f:]+$", max_length=256)]
    password: SecretReference


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
    """Agents that may be without the workload at once; a change reaches no more than so many at a time."""
    deadline: Duration = "5m"
    """Time for one agent to become healthy; after it the last good version comes back."""
    paused: bool = False
    """No further agent gets a change, until this is false again."""


class MongoDBUser(Model):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    password: SecretReference
    database: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,63}$")] = "admin"
    """Where the user is known (``authSource``), and what the role is for."""
    role: Literal["read", "readWrite", "dbOwner", "root"] = "readWrite"


def _is_seldom(every: str) -> str:
    if seconds(every) < SHORTEST_BACKUP:
        raise ValueError("backups are at least 1m apart")
    return every


class MongoDBBackup(Model):
    """Backups at intervals, kept on the agent (docs/mongodb.md)."""

    every: Annotated[Duration, AfterValidator(_is_seldom)] = "24h"
    keep: Annotated[int, Field(ge=1, le=1000)] = 7
    """The oldest ones beyond go, of those that were made at intervals."""
    lock: bool = True
    """Writes wait while a backup reads, so that all collections are of one moment. Without it each is of its own."""


class MongoDB(Model):
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")]
    users: Annotated[tuple[MongoDBUser, ...], Field(max_length=64)] = ()
    """Exactly these; others are removed, and passwords follow their secrets."""
    storage: ByteSize | None = None
    """How large the database may grow. When it is larger the agent says so; nothing is refused to clients."""
    runtime: Literal["container", "process"] | None = None
    """What it runs in. Without it in a container where the agent has an engine, else as a process; it stays there."""
    image: Image | None = None
    """In place of mongo:<version>. ``mongod`` is on its path, and ``/data/db`` belongs to user 999."""
    backup: MongoDBBackup | None = None


class DeploymentSpec(Model):
    type: Literal["container", "process", "mongodb"]
    agents: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    """Agents to run on, by name."""
    agent_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = EMPTY
    """Or: every agent of the team that carries all of these labels."""
    image: Image | None = None
    """For type container."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When the image is fetched. Always: each time that an instance is set up, which a moved tag does not cause."""
    registry: Registry | None = None
    """For an image that not everybody may fetch."""
    command: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    """Program and arguments. Needed for type process; for type container it replaces the image's command."""
    env: Annotated[dict[EnvName, EnvValue], Field(max_length=256)] = EMPTY
    secrets: Annotated[tuple[SecretEnv, ...], Field(max_length=64)] = ()
    """Environment variables from secrets. Whoever may use the agent's container engine can read them."""
    secret_files: Annotated[tuple[SecretFile, ...], Field(max_length=64)] = ()
    user: User | None = None
    """Whom it runs as; for type container without it the image's user, with the group of the same number where none
    is named."""
    ports: Annotated[tuple[PortMapping, ...], Field(max_length=64)] = ()
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32)] = ()
    tmpfs: Annotated[tuple[Tmpfs, ...], Field(max_length=16)] = ()
    """Beside ``/tmp``, of 64Mi, which every container has and which may be named here with another size."""
    resources: Resources = Resources()
    stop_grace: Grace = "10s"
    """Time between the request to end (SIGTERM) and the end by force."""
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
        if self.type == "mongodb" and (self.env or self.secrets or self.mounted() or self.user is not None):
            raise ValueError("type mongodb takes no env, secrets, secretFiles, volumes and user")
        if self.type != "mongodb" and self.mongodb is not None:
            raise ValueError(f"mongodb is for type mongodb, this is type {self.type}")
        for name, given in (
            ("pullPolicy", self.pull_policy != "IfNotPresent"),
            ("registry", self.registry is not None),
            ("tmpfs", bool(self.tmpfs)),
            ("volumes.shared", any(volume.shared is not None for volume in self.volumes)),
        ):
            if given and self.type != "container":
                raise ValueError(f"{name} is for type container, this is type {self.type}")
        if not self.agents and not self.agent_selector:
            raise ValueError("say where it runs: agents or agentSelector")
        return self

    @model_validator(mode="after")
    def _listens_where_it_is_told(self) -> Self:
        """A program has the agent's own ports, and finds the one to listen at in its environment."""
        if self.type != "process":
            return self
        for mapping in self.ports:
            if mapping.container != mapping.host:
                text = f"type process listens at ports of the agent itself: write {mapping.host} for container too"
                raise ValueError(f"{text}, and let the program take it from the variable PORT")
        if self.ports and "PORT" in (*self.env, *(secret.env for secret in self.secrets)):
            raise ValueError("the agent gives PORT to a program with ports; leave it out")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for what, values in (
            ("agent", list(self.agents)),
            ("host port", [mapping.host for mapping in self.ports]),
            ("port name", [mapping.name for mapping in self.ports if mapping.name is not None]),
            ("volume", [volume.name for volume in self.volumes]),
            ("path", self.mounted()),
            ("environment variable", [*self.env, *(secret.env for secret in self.secrets)]),
        ):
            seen: set[object] = set()
            for value in values:
                if value in seen:
                    raise ValueError(f"{what} {value} is listed twice")
                seen.add(value)
        return self

    @property
    def service_tls(self) -> ServiceTLS | None:
        """The certificate that it serves with. A database always has one."""
        return ServiceTLS() if self.tls is None and self.type == "mongodb" else self.tls

    def mounted(self) -> list[str]:
        """Return every path in the container at which something is mounted because it is written here."""
        return [
            *(volume.path for volume in self.volumes),
            *(tmpfs.path for tmpfs in self.tmpfs),
            *(file.path for file in self.secret_files),
        ]

    def secret_uses(self) -> Iterator[SecretUse]:
        """Yield every place that names a value of a secret."""
        for index, env in enumerate(self.secrets):
            yield SecretUse(env.secret, env.key, ("spec", "secrets", index), "secret")
        for index, file in enumerate(self.secret_files):
            yield SecretUse(file.secret, file.key, ("spec", "secretFiles", index), "secret")
        if self.registry is not None:
            password = self.registry.password
            yield SecretUse(password.name, password.key, ("spec", "registry", "password"), "name")
        for index, user in enumerate(self.mongodb.users if self.mongodb is not None else ()):
            field = ("spec", "mongodb", "users", index, "password")
            yield SecretUse(user.password.name, user.password.key, field, "name")


class Deployment(Document):
    kind: Literal["Deployment"]
    spec: DeploymentSpec
