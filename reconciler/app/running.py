"""Who owns each task, and how all of them end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

from reconciler.app.building import Parts
from reconciler.app.certificate import OwnCertificate
from reconciler.errors import Broken, CloudLunacyError
from reconciler.housekeeping import Housekeeping
from reconciler.observability.certificate_metrics import CertificateMetrics
from reconciler.observability.logs import get_logger
from reconciler.pki.keystore import KeyStore
from reconciler.pki.resealing import seal_the_rest
from reconciler.pki.vault import Vault, read_secret
from reconciler.settings import Settings
from reconciler.steps.collecting import Collector
from reconciler.steps.probing import Probing
from reconciler.store.lock import DataDirectoryLock
from reconciler.store.protocols import Event
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.server import listen
from schemas.fleet import Fleet

log = get_logger(__name__)

RESUME_PAUSE: Final = 2.0


class ControlPlane(Parts):
    """The parts at work. Make it with :func:`control_plane`."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set. Raises what ended the first task that should not have ended."""
        await self._observer.load()
        await self.health.load(self._observer.seen)
        await self._access.load()
        await self.forges.load()
        await self.rollouts.pauses.load()
        for notice in self._store.notices:
            log.warning("store replaced", notice=notice)
            self._metrics.store_replaced()
            await self._store.append(Event(time.time(), "StoreReplaced", "warning", "store", notice))
        CertificateMetrics(self._metrics.registry, lambda: self._front_certificates.statuses(self.loop.published))
        housekeeping = Housekeeping(
            self._store, self.mirror, self._metrics, lambda: self.loop.published.state, history=self.measuring.history
        )
        tasks = {
            self._task("loop", self._loop()),
            self._task("outbox", self._committer.run()),
            self._task("observer", self._observer.run()),
            self._task("housekeeping", housekeeping.run()),
            self._task("collector", Collector().run()),
            self._task("certificate", self.certificate.run(self._fleet, self._store, self._metrics)),
            self._task("agent-certificates", self._certificates.run()),
            self._task("rotations", self.rotations.run()),
            self._task("acme", self.acme.run()),
            self._task("mongodb", self.mongodb.run()),
            self._task("measuring", self.measuring.run()),
            self._task("health", self.health.run()),
            self._task("feed", self.feeding.run()),
            self._task("probing", self._probing().run()),
            self._task("figures", self.traffic.figures.run()),
            *(self._task(name, coroutine) for name, coroutine in self._access.tasks().items()),
            *(self._task(name, coroutine) for name, coroutine in self.forges.tasks().items()),
            *(self._task(name, coroutine) for name, coroutine in self.notices.tasks().items()),
            *(self._task(name, coroutine) for name, coroutine in self._deployments.tasks().items()),
            self._task("server", self.server.serve(sockets=[self._socket])),
            self._task("stop", _wait(stop)),
        }
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._close(tasks)
        for task in done:
            _require_expected_end(task, stop)

    def _probing(self) -> Probing:
        return Probing(self._front_certificates, self._fronts.fronts, lambda: self.loop.published, self._store)

    def _fleet(self) -> Fleet | None:
        return self.loop.published.state.fleet

    def _task(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(coroutine, name=name)

    async def _close(self, tasks: set[asyncio.Task[None]]) -> None:
        await self._hub.close()
        self.feeding.feed.close()
        self.server.should_exit = True
        serving = [task for task in tasks if task.get_name() == "server" and not task.done()]
        if serving:
            await asyncio.wait(serving, timeout=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._observer.flush()
        except CloudLunacyError as error:
            log.warning("what agents said last cannot be written", error=str(error))
        except Exception:  # a bug must not keep the rest from being closed
            log.exception("writing what agents said last ended by a bug")
        await self.health.close()
        await self.forges.close()
        await self.traces.close()
        await self.measuring.close()
        await self._preflight.close()
        for front in self._fronts.fronts:
            await front.api.close()
        await self.mirror.close()
        self._cache.close()

    async def _loop(self) -> None:
        """Take up what was published before, then reconcile. Without the former, nothing may be judged."""
        while True:
            try:
                await self._front_certificates.take_up()
                resumed = await self._fronts.take_up(time.time(), self._front_certificates.overlay)
                if resumed.is_recovered:
                    text = "what is in service was found out again and published once more: the store had lost it"
                    await self._store.append(Event(time.time(), "PublicationRecovered", "warning", "store", text))
                published = resumed.published
                await self.loop.resume(published, resumed.confirmed)
                break
            except CloudLunacyError as error:
                log.warning("what was published cannot be read yet", error=str(error))
            except Exception:  # what is published stays in service meanwhile
                log.exception("taking up what was published ended by a bug, trying again")
            await asyncio.sleep(RESUME_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, guards nothing
        log.info("resumed", generation=published.generation, revision=published.revision)
        await self.loop.run()


@contextlib.asynccontextmanager
async def control_plane(settings: Settings) -> AsyncIterator[ControlPlane]:
    """Lock the data directory, open everything, and close it again.

    Raises:
        Broken: when another process holds the data directory, or something in it or around it is wrong.
    """
    with DataDirectoryLock(settings.data):
        folder, secret = settings.data / "keys", read_secret(settings.key_file, settings.key_passphrase_file)
        vault = Vault.unlock(folder, secret)
        if seal_the_rest(folder, vault):
            vault = Vault.unlock(folder, secret)  # forgets the former key where nothing is left
        keys = KeyStore(folder, vault)
        store = await SQLiteStore.open(settings.data)
        bound = None
        try:
            certificate = OwnCertificate(settings, vault)
            bound = listen(settings.host, settings.port)
            plane = ControlPlane(settings, store, keys, bound, certificate)
            try:
                yield plane
            finally:
                plane.acme.close()
                plane.mongodb.close()
        finally:
            if bound is not None:
                bound.close()
            await store.close()


async def serve(settings: Settings) -> None:
    """Run the control plane until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with control_plane(settings) as plane:
        log.info(
            "listening",
            address=plane.address,
            data=str(settings.data),
            repo=str(plane.mirror.remote),
            ca_sha256=plane.certificate.authority.bundle().fingerprints[0],
            age_recipient=plane.recipient,
        )
        await plane.run(stop)


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


def _require_expected_end(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Raise Broken, or what the task raised of ours, unless somebody asked for the end."""
    error = task.exception()
    if isinstance(error, CloudLunacyError):
        raise error
    if error is not None:
        log.error("a task ended by a bug", task=task.get_name(), exc_info=error)
    if error is not None or not stop.is_set():
        hint = "The log has the details. Start it again: what is published stays in service."
        raise Broken(f'the task "{task.get_name()}" ended unexpectedly.', hint=hint)
