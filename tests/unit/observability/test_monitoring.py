"""docs/monitoring: rules that Prometheus takes, on metrics that there are, each with a runbook."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from reconciler.observability import agent_metrics
from reconciler.observability.acme_metrics import AcmeMetrics
from reconciler.observability.certificate_metrics import CertificateMetrics
from reconciler.observability.health_metrics import HealthMetrics
from reconciler.observability.metrics import Metrics
from reconciler.observability.mongodb_metrics import MongoDBMetrics
from reconciler.observability.rollout_metrics import RolloutMetrics
from schemas.metrics import DEPLOYMENT, MACHINE
from tests.support.parts import require

DOCS: Final = Path(__file__).parents[3] / "docs"
FOLDER: Final = DOCS / "monitoring"
ALERTS: Final = FOLDER / "cloudlunacy-alerts.yml"
NAME: Final = re.compile(r"\b(?:cloudlunacy|process)_[a-z0-9_]+\b")


def rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(ALERTS)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """Every expression of the rules and of the dashboard, and the queries of its variables."""
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked = [one["definition"] for one in dashboard["templating"]["list"] if "definition" in one]
    return [rule["expr"] for rule in rules()] + shown + asked


@pytest.fixture(scope="module")
def exposed() -> frozenset[str]:
    """Names of samples that a control plane shows, at both of its endpoints."""
    metrics = Metrics()
    HealthMetrics(metrics.registry, dict)
    MongoDBMetrics(metrics.registry)
    AcmeMetrics(metrics.registry)
    CertificateMetrics(metrics.registry, list)
    RolloutMetrics(metrics.registry, dict)
    Counter("cloudlunacy_notifications", "As reconciler/app/notifying.py makes it.", ("o",), registry=metrics.registry)
    texts = {name: one.text for name, one in MACHINE.items()}
    agents = agent_metrics.render(
        (), texts, {name: one.text for name, one in DEPLOYMENT.items()}, agent_metrics.Limits()
    )
    families = [
        family for body, _ in (metrics.render(), agents) for family in text_string_to_metric_families(body.decode())
    ]
    counters = {f"{one.name}_total" for one in families if one.type == "counter"}
    histograms = {
        f"{one.name}{end}" for one in families if one.type == "histogram" for end in ("_bucket", "_sum", "_count")
    }
    return frozenset(counters | histograms | {one.name for one in families if one.type == "gauge"})


@pytest.mark.parametrize(
    "arguments", [("check", "rules", ALERTS.name), ("test", "rules", "cloudlunacy-alerts-test.yml")]
)
def test_prometheus_takes_the_rules(arguments: tuple[str, ...]) -> None:
    """promtool finds nothing wrong, and each alert fires where its test says and is silent where it says that."""
    done = subprocess.run(
        [require("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_both_ways() -> None:
    """There is one test in which it fires and one in which it does not."""
    tests = YAML(typ="safe").load(FOLDER / "cloudlunacy-alerts-test.yml")["tests"]
    tried = [(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]]
    assert sorted(tried) == sorted((rule["alert"], fires) for rule in rules() for fires in (True, False))


def test_every_metric_that_is_asked_for_is_there(exposed: frozenset[str]) -> None:
    """A metric that was renamed takes its alerts and panels along."""
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert asked - exposed - {"cloudlunacy"} == set()


def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(exposed: frozenset[str]) -> None:
    """But for numbers of machines, of which a few are enough for a fleet, and parts of histograms."""
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    ours = {
        name
        for name in exposed
        if name.startswith("cloudlunacy_") and not name.endswith(("_sum", "_count", "_created"))
    }
    machines = {f"cloudlunacy_{name}" for name in MACHINE} | {f"cloudlunacy_deployment_{name}" for name in DEPLOYMENT}
    assert ours - asked - machines == {"cloudlunacy_group_commit_size_bucket"}


def test_every_alert_says_what_it_is_and_where_its_runbook_is() -> None:
    """Severity, summary, description, and a link to a section of its name."""
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f"/runbooks/#{rule['alert'].lower()}")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """Each section says what it means, how to see more, what to do, and when it can be left alone."""
    page = (DOCS / "runbooks.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL))
    assert sections.keys() == {rule["alert"] for rule in rules()}
    for rule in rules():
        text = sections[rule["alert"]]
        assert text.startswith(f"*{rule['labels']['severity']}*. ")
        assert all(part in text for part in ("```", "**Do:** ", "**Safe to ignore** "))


def test_panels_name_a_unit_and_the_chosen_data_source() -> None:
    """Nothing in the dashboard belongs to the Grafana in which it was made."""
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["The way of a commit", "Agents", "Certificates", "Databases", "Process"]
    for panel in (one for one in dashboard["panels"] if one["type"] != "row"):
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
