"""What the machine that runs CI says of itself: which repository, which pull request, and whether it is from a fork.

PURE: the environment and the event's file go in as values. Sources: "Default environment variables" of GitHub Actions
(Gitea and Forgejo set the same and one more), "Predefined CI/CD variables" of GitLab, "Variables and secrets" of
Bitbucket Pipelines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from reconciler.errors import Broken
from reconciler.forges.forge import Kind, Place
from reconciler.forges.places import checked_api, checked_repository

TOKEN: Final = "CLOUDLUNACY_FORGE_TOKEN"  # noqa: S105 - the name of a variable
Annotations = Literal["github", "text"]
_BITBUCKET: Final = "https://api.bitbucket.org/2.0"
_MOST_DIGITS: Final = 15


@dataclass(frozen=True, slots=True)
class Run:
    """One run of CI. Outside of one, everything is empty."""

    place: Place | None = None
    number: int | None = None
    """Of the pull request; None where the run is for something else, such as a push."""
    is_fork: bool = False
    """The change comes from another repository: no run for it is given a token that may write."""
    base: str = ""
    """What the plan compares with, where nothing else is said."""
    revision: str = ""
    page: str = ""
    """URL of the run."""
    summary: str = ""
    """File whose Markdown the run's page shows."""
    annotations: Annotations = "text"


def run_of(environment: Mapping[str, str], event: bytes = b"") -> Run:
    """Return what a run is for. ``event``: content of the file that ``GITHUB_EVENT_PATH`` names.

    Raises:
        Broken: the variables make no sense.
    """
    if environment.get("GITHUB_ACTIONS") == "true" or environment.get("GITEA_ACTIONS") == "true":
        return _actions(environment, _object(event))
    if environment.get("GITLAB_CI") == "true":
        return _gitlab(environment)
    if environment.get("BITBUCKET_BUILD_NUMBER"):
        return _bitbucket(environment)
    return Run()


def _actions(environment: Mapping[str, str], event: Mapping[str, Any]) -> Run:
    is_gitea = "true" in (environment.get("GITEA_ACTIONS"), environment.get("FORGEJO_ACTIONS"))
    kind: Kind = "gitea" if is_gitea else "github"
    repository = environment.get("GITHUB_REPOSITORY", "")
    server = environment.get("GITHUB_SERVER_URL", "")
    default = f"{server}/api/v1" if is_gitea else "https://api.github.com"
    asked = event.get("pull_request")
    request = asked if isinstance(asked, dict) else {}
    head, base = _inner(request, "head"), _inner(request, "base")
    page = f"{server}/{repository}/actions/runs/{environment.get('GITHUB_RUN_ID', '')}" if server else ""
    return Run(
        place=_place(kind, environment.get("GITHUB_API_URL") or default, repository),
        number=_number(request.get("number")),
        is_fork=bool(request) and _inner(head, "repo").get("full_name") != _inner(base, "repo").get("full_name"),
        base=str(base.get("sha") or ""),
        revision=str(head.get("sha") or environment.get("GITHUB_SHA", "")),
        page=page,
        summary=environment.get("GITHUB_STEP_SUMMARY", ""),
        annotations="github",
    )


def _gitlab(environment: Mapping[str, str]) -> Run:
    own, source = (environment.get(f"CI_MERGE_REQUEST_{name}_ID", "") for name in ("PROJECT", "SOURCE_PROJECT"))
    return Run(
        place=_place("gitlab", environment.get("CI_API_V4_URL", ""), environment.get("CI_PROJECT_PATH", "")),
        number=_number(environment.get("CI_MERGE_REQUEST_IID")),
        is_fork=own != source,
        base=environment.get("CI_MERGE_REQUEST_DIFF_BASE_SHA", ""),
        revision=environment.get("CI_COMMIT_SHA", ""),
        page=environment.get("CI_JOB_URL", ""),
    )


def _bitbucket(environment: Mapping[str, str]) -> Run:
    repository = environment.get("BITBUCKET_REPO_FULL_NAME", "")
    destination = environment.get("BITBUCKET_PR_DESTINATION_BRANCH", "")
    page = f"https://bitbucket.org/{repository}/pipelines/results/{environment['BITBUCKET_BUILD_NUMBER']}"
    return Run(
        place=_place("bitbucket", environment.get("BITBUCKET_API_URL") or _BITBUCKET, repository),
        number=_number(environment.get("BITBUCKET_PR_ID")),
        base=f"origin/{destination}" if destination else "",
        revision=environment.get("BITBUCKET_COMMIT", ""),
        page=page,
    )


def _place(kind: Kind, api: str, repository: str) -> Place:
    try:
        return Place(kind, checked_api(api), checked_repository(repository, kind))
    except Broken as error:
        raise Broken(f"The variables of this CI run name no repository: {error.message}") from None


def _number(value: object) -> int | None:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= _MOST_DIGITS else None


def _inner(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _object(event: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(event or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
