"""What holds for every test: no settings of the person who runs it, no silent skip where all parts must be there."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Final

import hypothesis
import pytest

from tests.support.engine import DockerEngine, docker_engine

REQUIRE_ALL: Final = os.environ.get("CLOUDLUNACY_TEST_REQUIRE_ALL") == "1"

# Git as on a machine where nobody ever configured it.
os.environ.update(
    GIT_CONFIG_GLOBAL=os.devnull,
    GIT_CONFIG_NOSYSTEM="1",
    GIT_TERMINAL_PROMPT="0",
    GIT_AUTHOR_NAME="Test",
    GIT_AUTHOR_EMAIL="test@example.test",
    GIT_COMMITTER_NAME="Test",
    GIT_COMMITTER_EMAIL="test@example.test",
)
# Proxies of the machine are not for loopback; httpx and curl would ask them.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"

# A busy machine is no failure of the code. Where a change is judged it gets the same examples each time, so that what
# fails there is the change; everywhere else they are new ones.
hypothesis.settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
    derandomize=REQUIRE_ALL,
)
hypothesis.settings.load_profile("default")


UMASK: Final = 0o022
os.umask(UMASK)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "engine: runs a Docker Engine of its own, which takes root and about a minute")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("engine") is None)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Some commands narrow it for the whole process, which is theirs anywhere but here."""
    yield
    os.umask(UMASK)


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerEngine]:
    """A Docker Engine for all tests of this process."""
    with docker_engine() as running:
        yield running


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"With CLOUDLUNACY_TEST_REQUIRE_ALL=1 nothing may be skipped. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_ALL:
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if REQUIRE_ALL:
        _refuse_skip(report)
    return report
