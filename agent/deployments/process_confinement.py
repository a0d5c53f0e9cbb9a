"""What a program gets to see and to be, as arguments of bubblewrap (bwrap(1)), limits and environment. PURE.

What stands here is what isolates: read it together with docs/threats.md. A confined program has process, mount, IPC and
host name namespaces of its own. It sees the system's programs and libraries read-only, the few files of ``/etc`` that
they need, what the settings of the agent add, its volumes at their paths, and a ``/tmp`` of its own. It has no
capabilities and no way to new privileges. The network is the machine's.

Secrets are never part of arguments, which everybody on the machine may read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from agent.deployments.actions import Directory
from agent.deployments.driver import DriverError
from agent.deployments.given import Given
from agent.deployments.process_entry import STAGE
from agent.deployments.process_files import ENVIRONMENT, MARKER, TMP, VOLUMES
from agent.deployments.workload import Key, Workload
from schemas.deployment import DeploymentSpec, PortMapping
from schemas.mounts import holds, refused
from schemas.names import size_in_bytes

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")
ETC: Final = (
    "alternatives", "ca-certificates", "crypto-policies", "gai.conf", "group", "host.conf", "hosts", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "locale.alias", "localtime", "mime.types", "networks", "nsswitch.conf", "passwd",
    "pki/ca-trust", "pki/tls/cert.pem", "pki/tls/certs", "protocols", "resolv.conf", "services", "ssl/cert.pem",
    "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_PIDS: Final = 1024
_BINDS: Final = ("--bind", "--ro-bind", "--ro-bind-try")
FIRST_USER: Final = 1_900_000_000
_USERS: Final = 100_000_000
"""User ids that nobody else gives away (systemd's table of them calls the range unused)."""


class Place(NamedTuple):
    """Where one instance lives. ``data`` is the agent's, which nobody else may see."""

    data: str
    deployment: str
    instance: str


class Means(NamedTuple):
    """What this machine has to confine programs with. An empty path: it has not."""

    bwrap: str = ""
    root: bool = False
    """It gives each deployment a user of its own."""
    cgroup: str = ""
    """Directory in which groups can be made, with limits."""
    links: Mapping[str, str] = {}
    """Directories of the system that are links, and to what."""
    own_pids: bool = True
    """The kernel counts the processes of a user anew in each user namespace (Linux 5.14)."""

    @property
    def confined(self) -> bool:
        return bool(self.bwrap)


def user_of(agent: str, key: Key) -> int:
    """Return the user, and group, of a deployment's programs: each has its own."""
    digest = hashlib.sha256(f"{agent}/{key}".encode()).digest()
    return FIRST_USER + int.from_bytes(digest[:8]) % _USERS


def ids(agent: str, workload: Workload) -> tuple[int, int]:
    """Return user and group of a deployment's programs where root gives them: those that it names, or its own."""
    if workload.spec.user is None:
        own = user_of(agent, workload.key)
        return own, own
    user, _, group = workload.spec.user.partition(":")
    return int(user), int(group or user)


def environment(
    spec: DeploymentSpec, ports: Mapping[int, int], given: Given, instance: str, places: Mapping[str, str]
) -> dict[str, str]:
    """Return all that a program is given. ``places``: its home, and where each volume lies."""
    home = places[TMP]
    usual = {"PATH": PATH, "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"}
    found = {**usual, **given.environment(spec), MARKER: instance}
    for position, mapping in enumerate(spec.ports):
        port = str(ports.get(mapping.container, mapping.host))
        found |= dict.fromkeys(port_names(mapping, first=position == 0), port)
    return found | {f"VOLUME_{_variable(volume.name)}": places[f"{VOLUMES}/{volume.name}"] for volume in spec.volumes}


def port_names(mapping: PortMapping, *, first: bool) -> list[str]:
    """Return the variables that tell a program of a port: ``PORT`` is the first one."""
    named = f"PORT_{_variable(mapping.name)}" if mapping.name is not None else f"PORT_{mapping.container}"
    return ["PORT", named] if first else [named]


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def places(spec: DeploymentSpec, place: Place, *, confined: bool) -> dict[str, str]:
    """Return where a program finds its home and its volumes."""
    if confined:
        return {TMP: "/tmp", **{f"{VOLUMES}/{one.name}": one.path for one in spec.volumes}}  # noqa: S108  its own
    volumes = {f"{VOLUMES}/{one.name}": f"{place.deployment}/{VOLUMES}/{one.name}" for one in spec.volumes}
    return {TMP: f"{place.instance}/{TMP}", **volumes}


def limits(spec: DeploymentSpec, means: Means) -> dict[str, int]:
    """Return limits of the kernel for each process; memory only where no control group limits all of them together."""
    found = {"RLIMIT_CORE": 0}
    if means.cgroup:
        return found
    if spec.resources.memory is not None:
        found["RLIMIT_DATA"] = size_in_bytes(spec.resources.memory)
    # a limit that counts the whole user, and not only the deployment, would end at the person's other programs
    if means.confined and (means.root or means.own_pids):
        found["RLIMIT_NPROC"] = spec.resources.pids or DEFAULT_PIDS
    return found


def group_limits(spec: DeploymentSpec) -> dict[str, str]:
    """Return what to write into which file of a control group (cgroup v2)."""
    found = {"pids.max": str(spec.resources.pids or DEFAULT_PIDS)}
    if spec.resources.memory is not None:
        # no swap: a limit that swaps is felt by everybody else on the machine
        found |= {"memory.max": str(size_in_bytes(spec.resources.memory)), "memory.swap.max": "0"}
    if spec.resources.cpus is not None:
        found["cpu.max"] = f"{int(spec.resources.cpus * 100_000)} 100000"
    return found


class _Mount(NamedTuple):
    where: PurePosixPath
    words: tuple[str, ...]


class Confinement(NamedTuple):
    words: list[str]
    """What stands before a command."""
    sources: list[str]
    """Where root confines: what it has to show at ``STAGE`` first, for the program's user reaches none of it."""
    hidden: list[str]


def confined(
    workload: Workload,
    place: Place,
    means: Means,
    *,
    directories: Iterable[Directory] = (),
    readable: Iterable[str] = (),
    hidden: Iterable[str] = (),
) -> Confinement:
    """Return how a command runs confined. Raises DriverError for what cannot be.

    Words such as ``@0`` stand for a descriptor with the content of the first of its secret files. ``directories``: of
    the agent's own. ``readable``: further directories that programs may read. ``hidden``: what they may not, wherever
    it lies.
    """
    words = [
        *(means.bwrap, "--args", ENVIRONMENT, "--die-with-parent", "--new-session"),
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--hostname", workload.key.name, "--cap-drop", "ALL"),
    ]
    closed = list(dict.fromkeys((place.data, *hidden)))
    mounts = _system(means, readable)
    mounts += [] if means.root else _hidden(closed, means, readable)
    mounts += _own(workload, place, directories, readable)
    made: set[PurePosixPath] = set()
    sources: list[str] = []
    for mount in sorted(mounts, key=lambda one: len(one.where.parts)):  # what lies deeper is laid over what holds it
        words += [*_way_to(mount.where, means, made), *(_staged(mount.words, sources) if means.root else mount.words)]
    words += ["--remount-ro", "/", "--chdir", "/tmp", "--"]  # noqa: S108
    return Confinement(words, sources, closed if means.root else [])


def _staged(words: tuple[str, ...], sources: list[str]) -> tuple[str, ...]:
    """Take what is bound from the stage."""
    if words[0] not in _BINDS:
        return words
    how, source, target = words
    sources.append(source)
    return how, f"{STAGE}/{len(sources) - 1}", target


def _own(workload: Workload, place: Place, directories: Iterable[Directory], readable: Iterable[str]) -> list[_Mount]:
    """Return what belongs to the deployment. Raises DriverError for a path that is not one of its own."""
    found = [
        ("/proc", ("--proc", "/proc")),
        ("/dev", ("--dev", "/dev")),
        ("/tmp", ("--bind", f"{place.instance}/{TMP}", "/tmp")),  # noqa: S108  its own
    ]
    for volume in workload.spec.volumes:
        how = "--ro-bind" if volume.read_only else "--bind"
        found.append((volume.path, (how, f"{place.deployment}/{VOLUMES}/{volume.name}", volume.path)))
    found += [(one.target, ("--ro-bind" if one.read_only else "--bind", one.source, one.target)) for one in directories]
    for number, file in enumerate(workload.spec.secret_files):
        found.append((file.path, ("--perms", "0444", "--file", f"@{number}", file.path)))  # nobody else gets to it
    mounted = [*workload.spec.mounted(), *(one.target for one in directories)]
    for target, why in refused(mounted).items():
        raise DriverError("CannotStart", f"A program can have nothing at {target}: it {why}.")
    for target in mounted:
        if over := next((one for one in readable if holds(target, one)), ""):
            text = f"A program can have nothing at {target}: {over} is shown there (agent.toml)."
            raise DriverError("CannotStart", text)
    return [_Mount(PurePosixPath(target), words) for target, words in found]


def _way_to(where: PurePosixPath, means: Means, made: set[PurePosixPath]) -> list[str]:
    """Make the directories that lead somewhere, for everybody to pass; bubblewrap makes some for root alone."""
    new = [
        parent for parent in reversed(where.parents) if str(parent) not in ("/", *means.links) and parent not in made
    ]
    made.update(new)
    return [word for one in new for word in ("--perms", "0755", "--dir", str(one))]


def _system(means: Means, readable: Iterable[str]) -> list[_Mount]:
    found = []
    for path in SYSTEM:
        words = ("--symlink", means.links[path], path) if path in means.links else ("--ro-bind-try", path, path)
        found.append(_Mount(PurePosixPath(path), words))
    more = (*(f"/etc/{one}" for one in ETC), *readable)
    return [*found, *(_Mount(PurePosixPath(name), ("--ro-bind-try", name, name)) for name in more)]


def _hidden(closed: Iterable[str], means: Means, readable: Iterable[str]) -> list[_Mount]:
    """Lay an empty directory over what must not be seen, where something that is seen would show it."""
    shown = [PurePosixPath(path) for path in (*SYSTEM, *readable) if path not in means.links]
    found = []
    for name in closed:
        path = PurePosixPath(name)
        if any(path.is_relative_to(one) for one in shown):
            found.append(_Mount(path, ("--perms", "0555", "--tmpfs", name)))
    return found
