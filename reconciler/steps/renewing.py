"""The published revision once more, under a new generation, with what has changed beside the repository."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from reconciler.errors import Broken, Rejected, Transient
from reconciler.observability.logs import bind_revision, get_logger
from reconciler.observability.metrics import Metrics
from reconciler.status import Tracker
from reconciler.steps.certificates import Certificates
from reconciler.steps.delivery import Delivery
from reconciler.steps.in_service import InService
from reconciler.steps.passing import Pass
from reconciler.steps.preparing import Preparing

log = get_logger(__name__)


@dataclass(slots=True)
class Renewing:
    """``put_in_place`` is the loop's commit point; ``overtaken`` ends a wait for fronts early."""

    certificates: Certificates
    preparing: Preparing
    delivery: Delivery
    service: InService
    tracker: Tracker
    metrics: Metrics
    put_in_place: Callable[[Pass], Awaitable[None]]
    overtaken: asyncio.Event
    _said: str = field(default="", init=False)
    """What was said of a failure last: it is tried again each second."""

    async def look(self) -> None:
        """See to certificates and to what agents are told, and publish what has changed. Raises nothing."""
        published = self.service.published
        try:
            if await self.certificates.look(published) or await self.delivery.has_news(published):
                await self._bring_again()
        except (Transient, Rejected, Broken) as error:
            if str(error) != self._said:
                reason = getattr(error, "reason", "Broken")
                log.warning("certificates cannot be seen to, trying again", reason=reason, error=str(error))
            self._said = str(error)
        except Exception:
            log.exception("seeing to the certificates ended by a bug")
        else:
            self._said = ""

    async def _bring_again(self) -> None:
        """Give fronts and agents what is published, with what is new.

        Routes that had to wait for their certificate come with it. The revision that waits for a person, if there is
        one, goes on waiting.

        Raises:
            Rejected, Transient, Broken: what is published stays in service; the next look tries again.
        """
        published = self.service.published
        this = Pass(published.revision, published)
        with bind_revision(this.revision):
            await self.preparing.prepare(this)
            unchanged = this.plan is not None and this.plan.empty and this.overlay is published.overlay
            if unchanged and not await self.delivery.has_news(published):
                await self.certificates.put_into_service(this)
                return
            await self.put_in_place(this)
            self.metrics.published(this.generation, this.revision, "renewal")
            if self.tracker.get(this.revision) is not None:
                self.tracker.note(this.revision, generation=this.generation)
            if await self.service.read_back(self.overtaken) and this.items:
                documents = await self.delivery.push(self.service.published, this.items)
                self.tracker.documents_again(documents, self.delivery.gone_on(self.service.published))
            log.info("published again", generation=this.generation)
