"""Forges for tests: ASGI applications that answer as the documentation of each forge says."""

from __future__ import annotations

from tests.support.forges.bitbucket import FakeBitbucket
from tests.support.forges.fake import FakeForge
from tests.support.forges.gitea import FakeGitea
from tests.support.forges.github import FakeGitHub
from tests.support.forges.gitlab import FakeGitLab

KINDS: dict[str, type[FakeForge]] = {
    "github": FakeGitHub,
    "gitlab": FakeGitLab,
    "gitea": FakeGitea,
    "bitbucket": FakeBitbucket,
}
__all__ = ["KINDS", "FakeBitbucket", "FakeForge", "FakeGitHub", "FakeGitLab", "FakeGitea"]
