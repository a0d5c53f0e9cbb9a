"""Traces as a collector gets them: a small one that understands OTLP/HTTP listens on loopback."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from reconciler.app.running import control_plane
from reconciler.app.tracing import Traces
from reconciler.errors import Broken
from reconciler.settings import GitSettings, Settings, otlp_endpoint
from reconciler.status import Tracker
from reconciler.store.protocols import RevisionRecord
from schemas.status import STAGES, AgentProgress

REVISION = "8f3c" + "0" * 35 + "1"


class Store:
    async def save_record(self, record: RevisionRecord) -> None: ...


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Yield its URL, and the resource spans that it got."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
        finally:
            server.shutdown()
            thread.join()


def tracker(traces: Traces, clock: Any) -> Tracker:
    one = Tracker(Store(), clock)  # type: ignore[arg-type]
    one.on_state = traces.judged
    return one


def test_a_collector_gets_the_way_of_a_revision() -> None:
    """Held and then approved is two roots in one trace, the later linked to the former, each with its stages."""
    now = [1000.0]
    with collector() as (url, got):
        traces = Traces(url, clock=lambda: now[0])
        follow = tracker(traces, lambda: now[0])
        follow.agent_presence("vps-1", connected=True)
        follow.begin(REVISION)
        follow.reach(REVISION, *STAGES[:3])
        follow.note(REVISION, generation=4)
        follow.stop(REVISION, "Held", "DeletionGuard", "too much at once")
        follow.begin(REVISION)
        for stage in STAGES[3:8]:
            now[0] += 1
            if stage == "pushed":
                follow.concern(REVISION, {"vps-1": "digest"}, ["vps-1"])
            follow.reach(REVISION, stage)
        now[0] += 1
        follow.agent_progress("vps-1", "digest", AgentProgress(state="applied", applied=None))
        asyncio.run(traces.close())
    spans = [span for one in got for scope in one.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in spans} == {REVISION[:32]}
    first, second = (span for span in spans if span.name == "revision")
    assert (first.status.message, second.status.message) == ("DeletionGuard: too much at once", "")
    assert [link.span_id for link in second.links] == [first.span_id]
    assert [span.name for span in spans if span.parent_span_id == second.span_id] == list(STAGES)
    attributes = {one.key: one.value for one in second.attributes}
    assert attributes["cloudlunacy.state"].string_value == "Converged"
    assert attributes["cloudlunacy.generation"].int_value == 4
    assert second.end_time_unix_nano - second.start_time_unix_nano == 6 * 10**9
    resource = {one.key: one.value.string_value for one in got[0].resource.attributes}
    assert resource["service.name"] == "cloudlunacy"


def test_a_control_plane_traces_what_its_tracker_judges(tmp_path: Path) -> None:
    """The endpoint of its settings is where the records of its own tracker go."""

    async def judge(url: str) -> None:
        repo = f"file://{tmp_path}/repo"
        settings = Settings(git=GitSettings(repo=repo), data=tmp_path / "data", port=0, otlp_endpoint=url)
        async with control_plane(settings) as plane:
            plane._tracker.begin(REVISION)
            plane._tracker.stop(REVISION, "Failed", "AgentFailed", "")
            await plane.traces.close()

    with collector() as (url, got):
        asyncio.run(judge(url))
    assert [span.name for one in got for scope in one.scope_spans for span in scope.spans] == ["revision"]


def test_without_an_endpoint_nothing_is_made() -> None:
    """Neither spans nor a thread."""
    before = threading.active_count()
    traces = Traces("")
    follow = tracker(traces, lambda: 1.0)
    follow.begin(REVISION)
    follow.stop(REVISION, "Failed", "AgentFailed", "")
    asyncio.run(traces.close())
    assert threading.active_count() == before


def test_without_the_package_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install; only who sets an endpoint needs it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(Broken, match="not installed") as caught:
        Traces("http://127.0.0.1:4318/v1/traces")
    assert "cloudlunacy[tracing]" in str(caught.value)


@pytest.mark.parametrize("value", ["127.0.0.1:4318", "grpc://collector:4317", "http://", "http://[::1"])
def test_an_endpoint_is_a_url_over_http(value: str) -> None:
    """Anything else is refused at the start, with an example."""
    assert otlp_endpoint({}) == ""
    with pytest.raises(Broken, match="no URL over HTTP"):
        otlp_endpoint({"CLOUDLUNACY_OTLP_ENDPOINT": value})
