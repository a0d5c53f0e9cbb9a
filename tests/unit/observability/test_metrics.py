from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.observability.metrics import OTHER, Metrics


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the exposition as {(name, values of the labels in order of their names): value}."""
    text = metrics.render()[0].decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def own(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    return {key: value for key, value in samples(metrics).items() if key[0].startswith("cloudlunacy_")}


def test_the_exposition_can_be_scraped() -> None:
    """It names its type, has help for each metric, and tells about the process too."""
    body, content_type = Metrics().render()
    assert content_type.startswith("text/plain; version=")
    families = list(text_string_to_metric_families(body.decode()))
    assert all(family.documentation for family in families)
    assert "process_resident_memory_bytes" in {family.name for family in families}


def test_two_sets_of_metrics_do_not_meet() -> None:
    """Each has a registry of its own, so that two control planes in one process do not mix."""
    first, second = Metrics(), Metrics()
    first.poll()
    assert own(second)["cloudlunacy_polls_total", ()] == 0


def test_each_call_moves_its_own_metric() -> None:
    """Every counter and gauge shows what it was told."""
    metrics = Metrics(problem_codes=frozenset({"unknown-agent"}))
    metrics.revision("Converged")
    metrics.newest("Held")
    metrics.newest("Converged")
    metrics.problem("unknown-agent")
    metrics.poll()
    metrics.poll("RemoteUnavailable")
    metrics.preflight_failed("ObjectsRefused")
    metrics.restored()
    metrics.read_back_failed("Late")
    metrics.objects({"Route": 3}, quarantined=2)
    metrics.webhook("bad-signature")
    metrics.enrolment("conflicted: vps-1 is taken")
    metrics.group_committed(50)
    metrics.push()
    metrics.push(failed=True)
    metrics.agents_connected(7)
    metrics.messages_of(lambda: {("desired", "out"): 5})
    metrics.event("warning")
    metrics.store_replaced()
    shown = own(metrics)
    expected = {
        ("revisions_total", "Converged"): 1,
        ("revisions_total", "Held"): 0,
        ("newest_revision", "Converged"): 1,
        ("newest_revision", "Held"): 0,
        ("problems_total", "unknown-agent"): 1,
        ("polls_total",): 2,
        ("poll_failures_total", "RemoteUnavailable"): 1,
        ("preflight_failures_total", "ObjectsRefused"): 1,
        ("restores_total",): 1,
        ("read_back_failures_total", "Late"): 1,
        ("objects", "Route"): 3,
        ("objects", "Agent"): 0,
        ("objects_quarantined",): 2,
        ("webhooks_total", "bad-signature"): 1,
        ("enrolments_total", "conflicted"): 1,
        ("group_commit_size_sum",): 50,
        ("pushes_total",): 1,
        ("push_failures_total",): 1,
        ("agents_connected",): 7,
        ("agent_messages_total", "out", "desired"): 5,
        ("events_total", "warning"): 1,
        ("store_replaced_total",): 1,
    }
    assert {key: shown[f"cloudlunacy_{key[0]}", key[1:]] for key in expected} == expected


def test_a_stage_is_timed_also_when_it_fails() -> None:
    """The histogram of the stage gets the seconds between begin and end."""
    clock = Clock()
    metrics = Metrics(timer=clock)

    def fail() -> None:
        clock.now += 2.0
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"), metrics.stage("rendered"):
        fail()
    shown = own(metrics)
    assert shown["cloudlunacy_stage_seconds_sum", ("rendered",)] == 2.0
    assert shown["cloudlunacy_stage_seconds_count", ("rendered",)] == 1


def test_a_git_operation_is_timed_and_its_failure_counted() -> None:
    """A block that raises counts as failed, one that ends does not."""
    clock = Clock()
    metrics = Metrics(timer=clock)
    with metrics.git("fetch"):
        clock.now += 0.5
    with pytest.raises(OSError, match="away"), metrics.git("push"):
        raise OSError("away")
    shown = own(metrics)
    assert shown["cloudlunacy_git_operation_seconds_sum", ("fetch",)] == 0.5
    assert shown["cloudlunacy_git_operation_failures_total", ("push",)] == 1
    assert ("cloudlunacy_git_operation_failures_total", ("fetch",)) not in shown


def test_ages_grow_with_the_clock() -> None:
    """The lag and the age of the outbox are taken when scraped, and are 0 when nothing waits."""
    clock = Clock()
    metrics = Metrics(clock=clock)
    lag, age = ("cloudlunacy_convergence_lag_seconds", ()), ("cloudlunacy_outbox_oldest_age_seconds", ())
    assert (own(metrics)[lag], own(metrics)[age]) == (0, 0)
    metrics.waiting_since(90.0)
    metrics.outbox(3, 95.0)
    clock.now = 110.0
    assert (own(metrics)[lag], own(metrics)[age]) == (20, 15)
    assert own(metrics)["cloudlunacy_outbox_depth", ()] == 3
    clock.now = 0.0  # a clock that is set back
    assert (own(metrics)[lag], own(metrics)[age]) == (0, 0)
    metrics.waiting_since(None)
    metrics.outbox(0, None)
    clock.now = 200.0
    assert (own(metrics)[lag], own(metrics)[age]) == (0, 0)


def test_only_the_newest_published_revision_is_shown() -> None:
    """A publication replaces the series of the former revision."""
    metrics = Metrics()
    for generation, revision in ((1, "a1"), (2, "b2"), (2, "b2")):
        metrics.published(generation, revision)
    shown = own(metrics)
    assert {key[1]: value for key, value in shown.items() if key[0] == "cloudlunacy_published_revision_info"} == {
        ("b2",): 1
    }
    assert shown["cloudlunacy_generation", ()] == 2
    assert shown["cloudlunacy_publications_total", ()] == 3


def test_strange_labels_make_no_series_of_their_own() -> None:
    """Whatever strings come in, the number of series is bounded: they count as other."""
    metrics = Metrics()

    def everything(text: str) -> None:
        metrics.stage_took(text, 1.0)
        metrics.revision(text)
        metrics.problem(text)
        metrics.poll(text)
        metrics.preflight_failed(text)
        metrics.read_back_failed(text)
        metrics.objects({text: 1}, quarantined=0)
        metrics.git_took(text, 1.0, failed=True)
        metrics.webhook(text)
        metrics.enrolment(text)
        metrics.messages_of(lambda: {(text, text): 1, (f"{text}'", "in"): 1})
        metrics.event(text)

    everything("first")
    before = set(own(metrics))
    for number in range(100):
        everything(f"vps-{number}\n{{}}")
    assert set(own(metrics)) == before
    assert own(metrics)["cloudlunacy_webhooks_total", (OTHER,)] == 101
