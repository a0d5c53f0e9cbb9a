"""Driver ``container``: instances are containers of a Docker Engine, or of Podman by the same API.

Each deployment has a network of its own, so that no other deployment reaches it, and the machine only where a port is
published. Containers get a read-only root, a ``/tmp`` in memory, no capabilities and no way to new privileges, a
limit of processes, and volumes of the engine by name: never a path of the machine that a deployment could name. All
that is made carries the labels of :mod:`agent.deployments.workload`; what does not is not looked at.

A container is created without a restart policy: whether it is any good is for the roll-out to judge. Once it is, the
engine starts it again by itself (``unless-stopped``), also while the agent is away.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from aiodocker.execs import Exec
from aiodocker.multiplexed import multiplexed_result_stream
from aiodocker.volumes import DockerVolume

from agent.deployments.actions import Action, Create, Keep, Remove, RemoveNetwork, RemoveVolumes, Start, Stop
from agent.deployments.container_config import (
    SUBNETS,
    container_config,
    container_name,
    network_configs,
    volume_configs,
)
from agent.deployments.container_exec import execute
from agent.deployments.container_images import ensure_image, owner_of_files
from agent.deployments.container_state import KEPT, read_instance
from agent.deployments.driver import DriverError, Stats, Written
from agent.deployments.engine_errors import BEING_REMOVED, translated
from agent.deployments.firewall import Firewall
from agent.deployments.given import Given
from agent.deployments.health import Probe
from agent.deployments.observed import Instance, Observed
from agent.deployments.secret_files import FOLDER, SecretFiles, are_there
from agent.deployments.shared_directories import NOTHING_SHARED, Shared, shared_with
from agent.deployments.workload import (
    LABEL_AGENT,
    LABEL_DIGEST,
    LABEL_SLOT,
    SLOTS,
    Key,
    owner_of,
)
from schemas.deployment import LONGEST_GRACE

log = logging.getLogger(__name__)
T = TypeVar("T")
_pieces: Callable[..., AsyncIterator[str]] = multiplexed_result_stream

_CALL_SECONDS: Final = 60.0
_FOREVER: Final = aiohttp.ClientTimeout(total=None)
_EXEC_POLL_SECONDS: Final = 0.05
_WATCH_PAUSE_SECONDS: Final = 1.0
_TAIL_LINES: Final = 5
_TAIL_CHARACTERS: Final = 600


class DockerEngine:
    """A :class:`agent.deployments.driver.Driver`.

    ``socket``: such as ``unix:///run/docker.sock``. ``publish_on``: the addresses of this machine at which ports
    answer. ``secret_files``: a directory in memory, at the same path for the engine as for the agent. ``shared``:
    what the machine's owner shares.
    """

    type: str = "container"

    def __init__(
        self,
        socket: str,
        agent: str,
        *,
        firewall: Firewall,
        publish_on: tuple[str, ...] = ("0.0.0.0",),  # noqa: S104  what is declared is meant to be reached
        subnets: str = SUBNETS,
        secret_files: Path = FOLDER,
        shared: Shared = NOTHING_SHARED,
    ) -> None:
        self._socket = socket
        self._agent = agent
        self._firewall = firewall
        self._publish_on = publish_on
        self._subnets = subnets
        self._secret_files = SecretFiles(secret_files, agent)
        self._shared = shared
        self._swept = False
        self._client: aiodocker.Docker | None = None
        self._known: dict[str, tuple[str, Instance]] = {}
        """By id, what was seen last, and what the list of containers said then."""
        self._watched = False
        """Changes are heard of, so that what was seen needs no second look."""
        self._heard = 0
        """Changes so far: what was asked for before one is not taken for known after it."""

    # --- what there is ------------------------------------------------------------------------------------------

    async def observe(self) -> Observed:
        """Return all that carries this agent's labels. Raises DriverError."""
        containers = await _call(self._docker.containers.list(all=True, filters=json.dumps(self._mine)))
        networks = await _call(self._docker.networks.list(filters=self._mine))
        volumes = await _call(self._volumes.list(filters=self._mine))
        looked = [await self._instance(listed) for listed in containers]
        instances = tuple(instance for instance in looked if instance is not None)
        self._known = {one.id: self._known[one.id] for one in instances if one.id in self._known}
        if not self._swept:  # before anything is made: a former agent may have been killed in the middle
            self._secret_files.keep_only({container_name(self._agent, one.key, one.slot) for one in instances})
            self._swept = True
        return Observed(instances, frozenset(self._owners(networks)), frozenset(self._owners(volumes["Volumes"] or ())))

    def _owners(self, found: Iterable[Mapping[str, Any]]) -> set[Key]:
        owners = (owner_of(one.get("Labels") or {}, self._agent) for one in found)
        return {key for key in owners if key is not None}

    async def _instance(self, listed: DockerContainer) -> Instance | None:
        """Look at a container; None where it is not ours, or went meanwhile."""
        labels = listed["Labels"] or {}
        key, slot = owner_of(labels, self._agent), labels.get(LABEL_SLOT)
        if key is None or slot not in SLOTS:
            return None
        name, state, heard = str(listed["Id"]), str(listed["State"]), self._heard
        known = self._known.get(name)
        if self._watched and known is not None and known[0] == state:
            return known[1]
        try:
            shown = await _call(listed.show())
        except DriverError as error:
            if error.reason == "NotThere":
                return None
            raise
        instance = read_instance(shown, key, labels.get(LABEL_DIGEST, ""), slot)
        if instance.state == "exited" and instance.exit_code != 0:
            instance = replace(instance, last_lines=await self._last_lines(listed))
        if heard == self._heard:
            self._known[name] = (state, instance)
        return instance

    @staticmethod
    async def _last_lines(container: DockerContainer) -> str:
        lines = await _call(container.log(stdout=True, stderr=True, tail=_TAIL_LINES))
        return " | ".join(line.rstrip() for line in lines if line.strip())[-_TAIL_CHARACTERS:]

    # --- what is done ---------------------------------------------------------------------------------------------

    async def carry_out(self, action: Action, given: Given) -> None:
        """Do it; once more for what is done already is no error. Raises DriverError."""
        docker = self._docker
        if isinstance(action, Create):
            await self._create(action, given)
        elif isinstance(action, RemoveNetwork):
            await self._remove_network(action.key)
        elif isinstance(action, RemoveVolumes):
            await self._remove_volumes(action.key)
        else:
            self._known.pop(action.instance.id, None)
            await self._change(action, docker.containers.container(action.instance.id))

    async def _change(self, action: Start | Keep | Stop | Remove, container: DockerContainer) -> None:
        if isinstance(action, Start):
            await self._firewall.ensure()
            await self._start(container)
        elif isinstance(action, Keep):
            await self._keep(action, container)
        elif isinstance(action, Stop):
            # after the grace that it was made with
            await _call(container.stop(), gone=True, seconds=_CALL_SECONDS + LONGEST_GRACE)
        else:
            await _remove(container)
            self._secret_files.remove(container_name(self._agent, action.key, action.instance.slot))

    async def _keep(self, action: Keep, container: DockerContainer) -> None:
        """Let the engine start it again. Podman cannot before 5.1: then the agent does, which goes by the name."""
        policy = {"RestartPolicy": {"Name": "unless-stopped"}}
        try:
            # without a name in the library
            await _call(self._docker._query_json(f"containers/{container.id}/update", "POST", data=policy))  # noqa: SLF001
        except DriverError as error:
            if error.reason != "NotThere":
                raise
            name = container_name(self._agent, action.key, action.instance.slot)
            await _call(container.rename(f"{name}{KEPT}"))

    @staticmethod
    async def _start(container: DockerContainer) -> None:
        try:
            await _call(container.start())
        except DriverError as error:
            if error.reason != "NotThere" and await _has_its_files(container):
                raise
            # somebody removed its network, or the machine was started anew, which ends what is in memory; a container
            # cannot be given another one, so it is made anew
            await _remove(container)
            text = "What it needs was removed from the container engine; it is made anew."
            raise DriverError("Removed", text, retryable=True) from None

    async def _create(self, action: Create, given: Given) -> None:
        workload, key = action.workload, action.key
        shared = shared_with(workload, self._shared)
        image = await ensure_image(self._docker, workload.spec, given)
        await self._ensure_network(key)
        for volume in volume_configs(self._agent, workload):
            await _call(self._volumes.create(volume))
        name, files = container_name(self._agent, key, action.slot), given.files(workload.spec)
        config = container_config(
            self._agent,
            workload,
            action.slot,
            action.ports,
            publish_on=self._publish_on,
            environment=given.environment(workload.spec),
            files=self._secret_files.write(name, files, owner_of_files(workload.spec, image)) if files else {},
            directories=(*action.directories, *shared),
        )
        await _call(self._docker.containers.create(config, name=name))

    async def _ensure_network(self, key: Key) -> None:
        # by its labels: engines allow two networks of one name
        if await self._networks_of(key):
            return
        for config in network_configs(self._agent, key, self._subnets):
            try:
                await _call(self._docker.networks.create(config))
            except DriverError as error:
                if "overlap" not in error.message.lower():
                    raise
            else:
                return
        text = f"All networks of {self._subnets} are in use on this machine."
        raise DriverError("NoNetworkLeft", text, retryable=True)

    async def _networks_of(self, key: Key) -> list[str]:
        found = await _call(self._docker.networks.list(filters=self._mine))
        return [str(one["Id"]) for one in found if owner_of(one.get("Labels") or {}, self._agent) == key]

    async def _remove_network(self, key: Key) -> None:
        for slot in SLOTS:
            self._secret_files.remove(container_name(self._agent, key, slot))
        for name in await self._networks_of(key):
            await _call((await _call(self._docker.networks.get(name))).delete(), gone=True)

    async def _remove_volumes(self, key: Key) -> None:
        found = await _call(self._volumes.list(filters=self._mine))
        for volume in found["Volumes"] or ():
            if owner_of(volume.get("Labels") or {}, self._agent) == key:
                await _call(self._volume(volume["Name"]).delete(), gone=True)

    # --- beside it ------------------------------------------------------------------------------------------------

    async def run_inside(self, instance: Instance, command: tuple[str, ...], timeout_seconds: float) -> Probe:
        """Run a command in the container; one that does not end in time goes on there."""
        container = self._docker.containers.container(instance.id)
        with translated():
            try:
                async with asyncio.timeout(timeout_seconds):
                    made = await container.exec(command)
                    await made.start(detach=True)
                    return await _ended(made, command[0])
            except TimeoutError:
                return Probe(False, f"{command[0]} did not end within {timeout_seconds:g} s")

    def execute(self, instance: Instance, command: tuple[str, ...]) -> AsyncGenerator[Written | int, None]:
        """Run a program in the container."""
        return execute(self._docker.containers.container(instance.id), command)

    async def logs(self, instance: Instance, *, tail: int, follow: bool = False) -> AsyncGenerator[str, None]:
        path, rest = f"containers/{instance.id}/logs", ""
        params = {"stdout": True, "stderr": True, "tail": tail, "follow": follow}
        with translated():
            # by the library's own way of asking, for its streams are left open by who stops reading
            async with self._docker._query(path, params=params, timeout=_FOREVER) as response:  # noqa: SLF001
                try:
                    async for piece in _pieces(response, is_tty=False):
                        *whole, rest = (rest + piece).split("\n")
                        for line in whole:
                            yield line
                finally:
                    response.close()
        if rest:
            yield rest

    async def stats(self, instance: Instance) -> Stats:
        found = (await _call(self._docker.containers.container(instance.id).stats(stream=False)))[0]
        cpu = found.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9
        memory = found.get("memory_stats", {}).get("usage", 0)
        return Stats(cpu, int(memory), int(found.get("pids_stats", {}).get("current", 0) or 0))

    async def watch(self, changed: Callable[[], None]) -> None:
        """Hear of what happens to our containers, so that nothing has to be looked at twice."""
        while True:
            try:
                await self._listen(changed)
            except (DockerError, aiohttp.ClientError, OSError, ValueError) as error:
                log.info("the container engine does not tell what happens: %s", type(error).__name__)
            except Exception:
                log.exception("what the container engine tells cannot be read")
            self._watched = False
            self._forget()
            changed()
            await asyncio.sleep(_WATCH_PAUSE_SECONDS)

    async def _listen(self, changed: Callable[[], None]) -> None:
        params = {"filters": json.dumps({"type": ["container"], **self._mine})}
        # the library's own events do not say when they have begun
        async with self._docker._query("events", params=params, timeout=_FOREVER) as response:  # noqa: SLF001
            try:
                self._forget()
                self._watched = True
                async for line in response.content:
                    event = json.loads(line)
                    if not str(event.get("Action", "")).startswith("exec_"):  # command probes change nothing
                        self._forget(str(event.get("Actor", {}).get("ID", "")))
                        changed()
            finally:
                response.close()

    def _forget(self, name: str = "") -> None:
        self._heard += 1
        if name:
            self._known.pop(name, None)
        else:
            self._known.clear()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    @property
    def _docker(self) -> aiodocker.Docker:
        if self._client is None:
            self._client = aiodocker.Docker(url=self._socket)
        return self._client

    @property
    def _volumes(self) -> Any:  # noqa: ANN401  the library does not say
        return self._docker.volumes

    def _volume(self, name: str) -> Any:  # noqa: ANN401
        volume: Any = DockerVolume
        return volume(self._docker, name)

    @property
    def _mine(self) -> dict[str, list[str]]:
        return {"label": [f"{LABEL_AGENT}={self._agent}"]}


async def _call(answer: Awaitable[T], *, gone: bool = False, seconds: float = _CALL_SECONDS) -> T:
    """Wait for an answer. ``gone``: that the object is not there is all right, and whatever is then returned unused.

    Raises:
        DriverError
    """
    with translated():
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except DockerError as error:
            if not (gone and error.status == 404):
                raise
            return None  # type: ignore[return-value]


async def _remove(container: DockerContainer) -> None:
    """Remove it with its anonymous volumes. A removal that was cut short goes on in the engine, and is waited for."""
    try:
        await _call(container.delete(force=True, v=True), gone=True)
    except DriverError as error:
        if error.reason != BEING_REMOVED:
            raise
        await _call(container.wait(condition="removed"), gone=True)


async def _has_its_files(container: DockerContainer) -> bool:
    """Say whether what is mounted from memory is still there."""
    shown = await _call(container.show())
    mounts = shown["HostConfig"].get("Mounts") or ()
    return are_there(mount["Source"] for mount in mounts if mount["Type"] == "bind")


async def _ended(made: Exec, program: str) -> Probe:
    while True:
        shown = await made.inspect()
        if not shown["Running"] and shown["ExitCode"] is not None:
            code = int(shown["ExitCode"])
            return Probe(code == 0, "" if code == 0 else f"{program} exited with {code}")
        await asyncio.sleep(_EXEC_POLL_SECONDS)
