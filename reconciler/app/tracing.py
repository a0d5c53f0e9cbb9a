"""Traces of the way of each revision, over OTLP/HTTP, where an endpoint is set.

OpenTelemetry's SDK is an extra (``cloudlunacy[tracing]``) and is imported only then. It sends in a thread of its own,
with a queue that is bounded: what does not fit is lost, and nothing waits. https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from reconciler.convergence import Record, to_status
from reconciler.errors import Broken
from reconciler.observability.logs import get_logger
from reconciler.observability.spans import DECIDED, Span, root_of, spans_of, trace_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

log = get_logger(__name__)

SEND_SECONDS: Final = 5.0
"""For one message to the collector, and for the last ones at the end."""
KEPT: Final = 256
"""Revisions of which it is known how often they were decided."""
NANOSECONDS: Final = 1_000_000_000


class Traces:
    """Does nothing without an endpoint, the full URL of a collector such as ``http://127.0.0.1:4318/v1/traces``."""

    def __init__(self, endpoint: str, *, clock: Callable[[], float] = time.time) -> None:
        """Raise Broken where an endpoint is set and the extra is not installed."""
        self._clock = clock
        self._decided: OrderedDict[str, int] = OrderedDict()
        self._processor = _processor(endpoint) if endpoint else None
        if endpoint:
            list(_readable("", (), 0))  # imports what it needs, now and not in the first revision's way
            log.info("traces", endpoint=endpoint)

    def judged(self, record: Record, state: str) -> None:
        """Note that a record's state has become another one; it never waits, and lets nothing out."""
        if self._processor is None or state not in DECIDED:
            return
        try:
            number = self._count(record.revision)
            for span in _readable(record.revision, spans_of(to_status(record), self._clock(), number), number):
                self._processor.on_end(span)
        except Exception:  # whatever a trace lacks, the revision goes on
            log.exception("a trace could not be made")

    async def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        if self._processor is not None:
            await asyncio.to_thread(self._processor.shutdown)

    def _count(self, revision: str) -> int:
        """Return how often a revision was decided before."""
        number = self._decided.pop(revision, 0)
        self._decided[revision] = number + 1
        if len(self._decided) > KEPT:
            self._decided.popitem(last=False)
        return number


def _processor(endpoint: str) -> SpanProcessor:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise Broken(
            "CLOUDLUNACY_OTLP_ENDPOINT is set, and what makes traces is not installed.",
            hint="Install cloudlunacy[tracing], or unset it.",
        ) from None
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=SEND_SECONDS))


def _readable(revision: str, spans: Iterable[Span], number: int) -> Iterable[ReadableSpan]:
    """Turn spans into the SDK's; the root of a later decision links to the one before."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
    from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags  # noqa: PLC0415

    version = importlib.metadata.version("cloudlunacy")
    resource = Resource.create({"service.name": "cloudlunacy", "service.version": version})
    scope = InstrumentationScope("cloudlunacy", version)
    trace = trace_of(revision)

    def context(span: int) -> SpanContext:
        return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    for one in spans:
        is_later_root = one.parent is None and number > 0
        yield ReadableSpan(
            one.name,
            context=context(one.span),
            parent=None if one.parent is None else context(one.parent),
            resource=resource,
            attributes=dict(one.attributes),
            links=[Link(context(root_of(revision, number - 1)))] if is_later_root else (),
            status=Status() if one.error is None else Status(StatusCode.ERROR, one.error),
            start_time=round(one.begin * NANOSECONDS),
            end_time=round(one.end * NANOSECONDS),
            instrumentation_scope=scope,
        )
