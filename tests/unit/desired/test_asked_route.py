"""Files of routes that agents asked for: what is written reads back, and what people changed is theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.app.building import WRITABLE
from reconciler.desired.asked_route import AskedRoute, putting, read, taking_back
from reconciler.desired.edits import EditConflict
from schemas.agent_routes import AgentRouteRequest, route_name
from schemas.names import HOST_PATTERN, NAME_PATTERN, PATH_PATTERN
from tests.support import documents

NAMES = st.from_regex(NAME_PATTERN[1:-1], fullmatch=True).filter(lambda one: len(one) <= 63)
HOSTS = st.from_regex(HOST_PATTERN[1:-1], fullmatch=True).filter(lambda one: len(one) <= 253)
PATHS = st.from_regex(PATH_PATTERN[1:-1], fullmatch=True).filter(lambda one: len(one) <= 1024)

ASKED = AskedRoute("routes/shop/web-asked-0123456789ab.yaml", "web-asked-0123456789ab", "vps-1", "web",
                   "a.app.cloudlunacy.test", "/api", 8081, plain=True)  # fmt: skip


@given(NAMES, NAMES, NAMES, HOSTS, PATHS, st.integers(1, 65535), st.booleans())
def test_whatever_may_be_asked_is_a_file_that_reads_back(
    agent: str, team: str, deployment: str, host: str, path: str, port: int, plain: bool
) -> None:
    """The file parses as a route to the agent alone, at a path that may be written, and is known as made this way."""
    wanted = AgentRouteRequest(team=team, deployment=deployment, hostname=host, path=path)
    name = route_name(agent, wanted)
    asked = AskedRoute(f"routes/{team}/{name}.yaml", name, agent, deployment, host, path, port, plain)
    assert WRITABLE.fullmatch(asked.path)
    assert read(asked.path, asked.content()) == asked
    route = documents.parsed(asked.path, asked.content()).object
    assert route is not None
    spec = route.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    assert spec["backends"] == [{"agent": agent, "port": port}]
    assert spec["hostnames"] == [host]
    assert spec.get("paths", [{"prefix": "/"}]) == [{"prefix": path}]


@pytest.mark.parametrize(
    "content",
    [
        ASKED.content() + b"# mine\n",
        ASKED.content().replace(b"8081", b"08081"),
        ASKED.content().replace(b"    weight", b""). replace(b"port: 8081}", b"port: 8081, weight: 2}"),
        ASKED.content().replace(b"vps-1", b"vps-2", 1),
        documents.route("web", "a.app.cloudlunacy.test"),
        b"",
        b"\xff",
        b"- 1\n",
        b"metadata: {annotations: [1]}\nspec: {}\n",
    ],
)  # fmt: skip
def test_what_is_not_as_it_was_made_is_left_alone(content: bytes) -> None:
    """Whatever else stands there is neither written over nor deleted."""
    assert read(ASKED.path, content) is None
    for edit in (putting(ASKED), taking_back(ASKED.path, "vps-1")):
        with pytest.raises(EditConflict, match="changed by somebody"):
            edit(content)


def test_another_agents_file_is_left_alone() -> None:
    """Of two agents none changes or deletes what the other asked for."""
    theirs = replace(ASKED, agent="vps-2").content()
    for edit in (putting(ASKED), taking_back(ASKED.path, "vps-1")):
        with pytest.raises(EditConflict, match="another agent"):
            edit(theirs)


def test_an_agent_changes_and_deletes_its_own() -> None:
    """A new port takes the place of the former one, the same again changes nothing, and what is gone stays gone."""
    former = replace(ASKED, port=9000).content()
    assert putting(ASKED)(None) == putting(ASKED)(former) == putting(ASKED)(ASKED.content()) == ASKED.content()
    assert taking_back(ASKED.path, "vps-1")(former) is None
    assert taking_back(ASKED.path, "vps-1")(None) is None


def test_only_such_files_and_those_of_agents_may_be_written() -> None:
    """No path of a person's file is one that commits of our own may touch."""
    name = "web-asked-0123456789ab.yaml"
    for path in (
        "fleet.yaml",
        "routes/shop/web.yaml",
        "routes/shop/web-asked.yaml",
        "routes/shop/-asked-0123456789ab.yaml",
        f"routes/{name}",
        f"routes/shop/x/{name}",
        f"routes/../agents/{name}",
        f"deployments/shop/{name}",
        f"routes/shop/{name}\n",
    ):
        assert not WRITABLE.fullmatch(path), path
    assert WRITABLE.fullmatch("agents/vps-1.yaml")
    assert WRITABLE.fullmatch(ASKED.path)
