"""Driver ``process``: instances are programs of this machine, each under a keeper of its own.

The keeper (:mod:`agent.deployments.process_keeper`) is no child that ends with the agent, and starts its program again
also while no agent is there. So the agent only writes down what is to run (:mod:`agent.deployments.process_files`),
starts and ends keepers, and looks. Where bubblewrap runs, programs are confined
(:mod:`agent.deployments.process_confinement`); where it does not, none is started unless the settings of the agent
say that they may be.

A program listens on the machine's network, at the ports that its environment names. Beside its former version it gets
others, so ``PORT`` counts and not what is written in its command.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets as randomness
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import psutil

from agent.deployments import process_instances as instances
from agent.deployments.actions import Action, Create, Keep, Remove, RemoveNetwork, RemoveVolumes, Start
from agent.deployments.driver import DriverError, Stats, Written
from agent.deployments.given import Given
from agent.deployments.health import Probe
from agent.deployments.observed import Instance, Observed
from agent.deployments.process_confinement import (
    Confinement,
    Means,
    Place,
    confined,
    environment,
    group_limits,
    ids,
    limits,
    places,
)
from agent.deployments.process_files import CHANGES, FOLDER, KEPT, Program, Record, holder
from agent.deployments.process_inside import execute, run
from agent.deployments.process_log import Follower, tail
from agent.deployments.process_machine import Found, look
from agent.deployments.process_users import NOBODY, Users, require_grant
from agent.deployments.workload import Key, Slot, Workload, engine_name
from schemas.names import seconds

log = logging.getLogger(__name__)
T = TypeVar("T")

_FOLLOW_SECONDS: Final = 0.2
_QUICKLY: Final = 1.0
"""Seconds to end for what is removed although it runs: nobody asks it any more."""


class ProcessSettings(NamedTuple):
    """What whoever looks after the machine may say."""

    readable: tuple[str, ...] = ()
    """Further directories that confined programs may read."""
    hidden: tuple[str, ...] = ()
    """Directories that they may not, besides the agent's own."""
    unconfined: bool = False
    """Start programs also where they cannot be confined: each is then as the agent's own user."""
    users: Users = NOBODY
    """Whom deployments of a team may name."""


class ProcessDriver:
    """A :class:`agent.deployments.driver.Driver`. ``data`` is the agent's directory."""

    type: str = "process"

    def __init__(
        self,
        data: Path,
        agent: str,
        settings: ProcessSettings = ProcessSettings(),  # noqa: B008  immutable
        *,
        machine: Callable[[], Found] = look,
    ) -> None:
        self._data = data.absolute()
        self._root = self._data / FOLDER
        self._agent = agent
        self._settings = settings
        self._machine = machine
        self._found: Found | None = None
        self._locks: dict[Key, threading.Lock] = {}
        """What was begun in a thread goes on there when its task is cancelled, so the next one has to wait for it."""
        self._keepers: set[int] = set()
        """Children of ours that have to be waited for."""
        self._ends: dict[int, int] = {}
        """Keeper → a descriptor that becomes readable at its end."""
        self._changed: Callable[[], None] | None = None

    # --- what there is ------------------------------------------------------------------------------------------

    async def observe(self) -> Observed:
        """Return all that lies in our directory."""
        self._reap()
        found, keepers = await self._call(self._look)
        self._watch_ends(keepers)
        return found

    def _look(self) -> tuple[Observed, set[int]]:
        there: list[Instance] = []
        volumes: set[Key] = set()
        keepers: set[int] = set()
        for key, directory in instances.directories(self._root):
            there += instances.read(key, directory)
            if instances.has_volumes(directory):
                volumes.add(key)
            keepers |= {holder(directory / one.slot) for one in there if one.key == key and one.up}
        return Observed(tuple(there), frozenset(), frozenset(volumes)), keepers - {0}

    def _reap(self) -> None:
        for pid in list(self._keepers):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid
            if ended:
                self._keepers.discard(pid)

    # --- what is done -------------------------------------------------------------------------------------------

    async def carry_out(self, action: Action, given: Given) -> None:
        """Do it; once more for what is done already is no error. Raises DriverError, OSError."""
        lock = self._locks.setdefault(action.key, threading.Lock())

        def alone() -> None:
            with lock:
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._carry_out(action, given)

        await self._call(alone)

    def _carry_out(self, action: Action, given: Given) -> None:
        if isinstance(action, Create):
            self._create(action, given)
        elif isinstance(action, RemoveVolumes):
            instances.remove_volumes(self._directory(action.key))
        elif not isinstance(action, RemoveNetwork):
            path = self._path(action.key, action.instance.slot)
            if self._is_there(path, action.instance):
                self._change(action, path)

    def _change(self, action: Action, path: Path) -> None:
        if isinstance(action, Start):
            record = _record(path)
            if record.program.cgroup:
                self._make_group(record.program.cgroup)
            keeper = instances.start(path, record)
            if keeper:
                self._keepers.add(keeper)
        elif isinstance(action, Keep):
            (path / KEPT).touch(mode=0o600)
        elif isinstance(action, Remove):
            group = Path(_group(path))
            instances.remove(path, _QUICKLY)
            with contextlib.suppress(OSError):
                group.rmdir()
        else:
            instances.stop(path, self._grace(path) + instances.LONGER)

    def _create(self, action: Create, given: Given) -> None:
        workload, spec, settings = action.workload, action.workload.spec, self._settings
        found = self._require_confinement()
        means, path = found.means, self._path(action.key, action.slot)
        place = Place(str(self._data), str(path.parent), str(path))
        owner = self._owner(workload, means)
        identity = randomness.token_hex(16)
        inside = Confinement([], [], [])
        if means.confined:
            inside = confined(
                workload, place, means,
                directories=action.directories, readable=settings.readable, hidden=settings.hidden,
            )  # fmt: skip
        elif spec.secret_files or action.directories:
            raise DriverError("NotIsolated", f"Files have no place of their own here: {found.lacking}.", retryable=True)
        where = places(spec, place, confined=means.confined)
        group = Path(means.cgroup) / engine_name(self._agent, *action.key, action.slot) if means.cgroup else None
        if group is not None:
            self._make_group(str(group), group_limits(spec))
        program = Program(
            argv=[*inside.words, *spec.command],
            env=environment(spec, action.ports, given, identity, where),
            directory=where["tmp"],
            confined=means.confined,
            grace=seconds(spec.stop_grace),
            limits=limits(spec, means),
            cgroup=str(group or ""),
            files=list(given.files(spec).values()),
            owner=list(owner or ()),
            sources=inside.sources,
            hidden=inside.hidden,
        )
        record = Record(identity, workload.digest, dict(action.ports), program, inside.words)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        instances.make(path, record, [volume.name for volume in spec.volumes], owner)

    @staticmethod
    def _make_group(path: str, values: Mapping[str, str] | None = None) -> None:
        try:
            Path(path).mkdir(exist_ok=True)
            for name, value in (values or {}).items():
                Path(path, name).write_text(value)
        except OSError as error:
            log.warning("%s cannot be limited: %s", path, error.strerror)

    def _require_confinement(self) -> Found:
        """Raises DriverError."""
        found = self._on_machine()
        if found.lacking and not self._settings.unconfined:
            self._found = None  # it may have been mended when this is tried again
            text = f"It is not started, because it would not be confined: {found.lacking}."
            raise DriverError("NotIsolated", text, retryable=True)
        return found

    def _on_machine(self) -> Found:
        if self._found is None:
            self._found = self._machine()
            if self._found.lacking:
                log.warning("programs are not confined here: %s", self._found.lacking)
        return self._found

    def _owner(self, workload: Workload, means: Means) -> instances.Owner:
        """Return whom its programs are. Raises DriverError for somebody whom this agent cannot make them."""
        require_grant(workload, self._settings.users)
        if means.root and means.confined:
            return ids(self._agent, workload)
        if workload.spec.user is not None and ids(self._agent, workload)[0] != os.geteuid():
            text = "It names a user, and programs here have that of the agent."
            raise DriverError("CannotStart", text)
        return None

    # --- beside it ----------------------------------------------------------------------------------------------

    async def run_inside(self, instance: Instance, command: tuple[str, ...], timeout_seconds: float) -> Probe:
        """Run a command confined as the instance is: it has its files, its user and its network. Raises DriverError."""
        return await run(_record(self._path(instance.key, instance.slot)), command, timeout_seconds)

    def execute(self, instance: Instance, command: tuple[str, ...]) -> AsyncGenerator[Written | int, None]:
        return execute(_record(self._path(instance.key, instance.slot)), command)

    async def logs(self, instance: Instance, *, tail: int, follow: bool = False) -> AsyncGenerator[str, None]:
        path = self._path(instance.key, instance.slot)
        follower = Follower(path)
        try:
            for line in await asyncio.to_thread(_tail, path, tail):
                yield line
            while follow and self._is_there(path, instance):
                for line in follower.lines():
                    yield line
                await asyncio.sleep(_FOLLOW_SECONDS)
            for line in follower.lines() if follow else ():
                yield line  # what it wrote at its end
        finally:
            follower.close()

    async def stats(self, instance: Instance) -> Stats:
        """Sum up the program and all that it began."""
        return await asyncio.to_thread(self._stats, self._path(instance.key, instance.slot))

    @staticmethod
    def _stats(path: Path) -> Stats:
        cpu, memory, count = 0.0, 0, 0
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(holder(path) or -1).children(recursive=True) if holder(path) else ():
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    cpu += times.user + times.system + times.children_user + times.children_system
                    memory += process.memory_info().rss
                    count += 1
        return Stats(cpu, memory, count)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Hear from the keepers, and of their ends."""
        loop = asyncio.get_running_loop()
        pipe = await asyncio.to_thread(self._open_pipe)

        def heard() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(pipe, 65536)
            changed()

        loop.add_reader(pipe, heard)
        self._changed = changed
        try:
            await self._call(self._clear)
            await asyncio.Event().wait()
        finally:
            self._changed = None
            loop.remove_reader(pipe)
            os.close(pipe)
            self._watch_ends(set())

    def _clear(self) -> None:
        """Remove what a former agent left half done: secrets lie in it, and nothing may ever be made here again."""
        for key, directory in instances.directories(self._root):
            with self._locks.setdefault(key, threading.Lock()):
                try:
                    instances.clear(directory)
                except OSError as error:
                    log.warning("what is left in %s cannot be removed: %s", directory, error.strerror)
                instances.leave(directory)

    def _open_pipe(self) -> int:
        path = self._root / CHANGES
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # for writing too: otherwise it would end with the last keeper
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _watch_ends(self, keepers: set[int]) -> None:
        """Have ``changed`` called at the end of each of these keepers."""
        loop = asyncio.get_running_loop()
        for pid in self._ends.keys() - keepers:
            descriptor = self._ends.pop(pid)
            loop.remove_reader(descriptor)
            os.close(descriptor)
        for pid in keepers - self._ends.keys() if self._changed is not None else ():
            with contextlib.suppress(OSError):
                self._ends[pid] = os.pidfd_open(pid)
                loop.add_reader(self._ends[pid], self._ended, pid)

    def _ended(self, pid: int) -> None:
        descriptor = self._ends.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        if self._changed is not None:
            self._changed()

    async def close(self) -> None:
        self._watch_ends(set())
        self._reap()

    # --- the parts of it ----------------------------------------------------------------------------------------

    def _directory(self, key: Key) -> Path:
        return self._root / key.team / key.name

    def _path(self, key: Key, slot: Slot) -> Path:
        return self._directory(key) / slot

    @staticmethod
    def _is_there(path: Path, instance: Instance) -> bool:
        """Say whether it is still the same instance; one whose record cannot be read has its place for a name."""
        try:
            return Record.read(path).id == instance.id
        except FileNotFoundError:
            return path.exists() and not instance.digest
        except (OSError, ValueError):
            return not instance.digest

    @staticmethod
    def _grace(path: Path) -> float:
        try:
            return Record.read(path).program.grace
        except (OSError, ValueError):
            return _QUICKLY

    @staticmethod
    async def _call(function: Callable[[], T]) -> T:
        return await asyncio.to_thread(function)


def _tail(path: Path, lines: int) -> list[str]:
    return tail(path, lines)


def _group(path: Path) -> str:
    try:
        return Record.read(path).program.cgroup or os.devnull
    except (OSError, ValueError):
        return os.devnull


def _record(path: Path) -> Record:
    """Raises DriverError."""
    try:
        return Record.read(path)
    except (OSError, ValueError) as error:
        raise DriverError("Removed", "It is not there any more; it is made anew.", retryable=True) from error
