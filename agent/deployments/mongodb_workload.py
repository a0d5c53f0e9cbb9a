"""From a deployment of type mongodb to what a lower driver runs: a command line for mongod. PURE.

No secret is part of it: mongod reads its key from a file, and users are made later (``mongodb_admin``). A change of
users or of backups therefore restarts nothing. What a container or process sees of the agent's own files are two
directories: one that only the agent writes, with certificate and roots, and one for the socket by which the agent, and
nobody else, is the first to log in.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final, Literal, NamedTuple

from agent.deployments.actions import Directory
from agent.deployments.workload import Workload
from schemas.deployment import CommandProbe, DeploymentHealthCheck, DeploymentSpec, PortMapping, Volume
from schemas.names import size_in_bytes

Runtime = Literal["container", "process"]

PORT: Final = 27017
VOLUME: Final = "data"
DATA: Final = "/data/db"
TLS: Final = "/run/cloudlunacy/tls"
SOCKETS: Final = "/run/cloudlunacy/socket"
CERTIFICATE: Final = "tls.pem"
ROOTS: Final = "ca.crt"
PROBE: Final = ("cloudlunacy: ping through TLS as the agent's user",)
"""Command of the health check; the agent does it itself, no program is run for it."""
USER: Final = "999:999"
"""``mongodb`` in the images that MongoDB's maintainers publish."""
_GRACE: Final = "60s"
_USUAL_GRACE: Final = "10s"
_GIB: Final = 2**30
_SMALLEST_CACHE: Final = 0.25


class Places(NamedTuple):
    """Where mongod finds what, as it sees it."""

    data: str = DATA
    tls: str = TLS
    sockets: str = SOCKETS


INSIDE: Final = Places()


def cache_gib(memory: str | None) -> float | None:
    """Return the size of WiredTiger's cache: half of what is beyond 1 GiB, as mongod reckons for a whole machine."""
    if memory is None:
        return None
    return max(_SMALLEST_CACHE, round((size_in_bytes(memory) / _GIB - 1) / 2, 2))


def port_of(spec: DeploymentSpec) -> int:
    """Return the port at which mongod listens."""
    return spec.ports[0].container if spec.ports else PORT


def socket_name(spec: DeploymentSpec) -> str:
    return f"mongodb-{port_of(spec)}.sock"


def command_line(mongod: str, spec: DeploymentSpec, places: Places = INSIDE) -> tuple[str, ...]:
    """Return what starts mongod: it answers over TLS only, to nobody without a password, and knows one mechanism."""
    tls = PurePosixPath(places.tls)
    cache = cache_gib(spec.resources.memory)
    return (
        *(mongod, "--dbpath", places.data, "--port", str(port_of(spec)), "--bind_ip_all"),
        *("--unixSocketPrefix", places.sockets, "--filePermissions", "0777"),
        *("--auth", "--setParameter", "authenticationMechanisms=SCRAM-SHA-256"),
        *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(tls / CERTIFICATE)),
        *("--tlsCAFile", str(tls / ROOTS), "--tlsAllowConnectionsWithoutCertificates"),
        *("--tlsDisabledProtocols", "TLS1_0,TLS1_1"),
        *(() if cache is None else ("--wiredTigerCacheSizeGB", f"{cache:g}")),
    )


def lowered(
    workload: Workload,
    runtime: Runtime,
    *,
    version: str,
    image: str | None,
    mongod: str = "mongod",
    places: Places = INSIDE,
) -> Workload:
    """Return what a driver runs. ``version`` and ``image`` may be older than what is asked for."""
    spec = workload.spec
    usual = spec.health_check or DeploymentHealthCheck(command=CommandProbe(command=PROBE), start_period="60s")
    check = usual.model_copy(update={"http": None, "tcp": None, "command": CommandProbe(command=PROBE)})
    contained = runtime == "container"
    ports = spec.ports if contained else tuple(_of_the_machine(one) for one in spec.ports)
    made = DeploymentSpec(
        type=runtime,
        agents=spec.agents,
        agent_selector=spec.agent_selector,
        image=(image or f"mongo:{version}") if contained else None,
        command=command_line(mongod, spec if contained else spec.model_copy(update={"ports": ports}), places),
        user=USER if contained else None,
        ports=ports,
        volumes=(Volume(name=VOLUME, path=places.data),),
        resources=spec.resources,
        stop_grace=_GRACE if spec.stop_grace == _USUAL_GRACE else spec.stop_grace,
        health_check=check,
        rollout=spec.rollout,
        deletion_policy=spec.deletion_policy,
    )
    return Workload(workload.key, made)


def _of_the_machine(mapping: PortMapping) -> PortMapping:
    """A process has the machine's own ports: it listens where the others find it."""
    return mapping.model_copy(update={"container": mapping.host})


def directories(home: PurePosixPath) -> tuple[Directory, Directory]:
    """Return what a container sees of the directory of its database on the agent."""
    return Directory(str(home / "tls"), TLS), Directory(str(home / "socket"), SOCKETS, read_only=False)
