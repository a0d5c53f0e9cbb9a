"""Which databases a state repo means by a name."""

from __future__ import annotations

import pytest

from reconciler.desired.state import State
from reconciler.errors import Rejected
from reconciler.mongodb.places import find, places
from tests.support import documents

USER = {"name": "shop", "password": {"name": "db", "key": "password"}, "database": "shop"}


def deployment(name: str, *agents: str, port: int = 27117, **spec: object) -> bytes:
    mongodb = {"version": "6.0", "users": [USER]}
    ports = [{"name": "mongodb", "container": 27017, "host": port}]
    return documents.document(
        "Deployment", name, {"type": "mongodb", "agents": list(agents), "mongodb": mongodb, "ports": ports, **spec}
    )


def route(*backends: object, **spec: object) -> bytes:
    return documents.document("Route", "db", {"type": "mongodb", "backends": list(backends), **spec})


def state(**more: bytes) -> State:
    """Two teams; the route of ``shop`` leads to vps-1, that of ``blog`` to the deployment on both others."""
    blog = documents.team("blog", agents=["vps-2", "vps-3"])
    files = {
        "fleet.yaml": documents.fleet(documents.team("shop", agents=["vps-1", "vps-2"]), blog),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2"),
        "agents/vps-3.yaml": documents.agent("vps-3"),
        "agents/vps-4.yaml": documents.agent("vps-4"),
        "secrets/shop/db.yaml": documents.secret("db", "password"),
        "secrets/blog/db.yaml": documents.secret("db", "password"),
        "deployments/shop/orders.yaml": deployment("orders", "vps-1"),
        "deployments/blog/posts.yaml": deployment("posts", "vps-2", "vps-3", port=27200),
        "routes/shop/db.yaml": route({"agent": "vps-1", "port": 27117}),
        "routes/blog/db.yaml": route({"deployment": "posts"}),
        **more,
    }
    found = documents.state_of(files)
    assert found.findings == {}
    return found


@pytest.mark.parametrize(
    ("name", "agents"),
    [
        ("vps-1", ["vps-1"]),
        ("vps-1.mongodb.cloudlunacy.test", ["vps-1"]),
        ("shop/db", ["vps-1"]),
        ("orders", ["vps-1"]),
        ("shop/orders", ["vps-1"]),
        ("blog/db", ["vps-2", "vps-3"]),
        ("posts", ["vps-2", "vps-3"]),
    ],
)
def test_a_name_means_an_agent_a_route_a_deployment_or_a_host(name: str, agents: list[str]) -> None:
    """Each with the users of the deployment behind it."""
    found = find(name, state())
    assert [one.agent for one in found] == agents
    assert all([user.name for user in one.users] == ["shop"] for one in found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("db", "means several databases. Write blog/db or shop/db."),
        ("vps-4", 'No route of type mongodb leads to the agent "vps-4".'),
        ("vps-4.mongodb.cloudlunacy.test", 'No route of type mongodb leads to the agent "vps-4".'),
        ("odrers", 'Did you mean "orders"?'),
        ("vsp-1.mongodb.cloudlunacy.test", 'Did you mean "vps-1.mongodb.cloudlunacy.test"?'),
        ("zzz", "There are: vps-1, vps-2, vps-3."),
    ],
)
def test_other_names_get_a_sentence(name: str, message: str) -> None:
    """What is wrong, and what could be meant."""
    with pytest.raises(Rejected) as caught:
        find(name, state())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, True),
        ({"certificates/db.yaml": documents.certificate("db", "*.mongodb.cloudlunacy.test")}, True),
        ({"certificates/db.yaml": documents.certificate("db", "*.mongodb.cloudlunacy.test", issuer="acme")}, False),
        ({"routes/shop/db.yaml": route({"agent": "vps-1", "port": 27117}, tls={"mode": "passthrough"})}, False),
    ],
)
def test_whose_authority_clients_have_to_trust_is_known(files: dict[str, bytes], expected: bool) -> None:
    """The fleet's own unless an object says otherwise; where TLS ends at the database nobody here knows."""
    assert [one.is_internal for one in find("vps-1", state(**files))] == [expected]


def test_what_gets_no_connections_is_no_place() -> None:
    """A backend without weight, and an agent in quarantine."""
    weightless = route({"agent": "vps-1", "port": 27117, "weight": 0})
    assert [one.agent for one in places(state(**{"routes/shop/db.yaml": weightless}))] == ["vps-2", "vps-3"]
    quarantined = documents.agent("vps-1", state="quarantined")
    with pytest.raises(Rejected, match="it is quarantined"):
        find("vps-1", state(**{"agents/vps-1.yaml": quarantined}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vps-1", 'No route of type mongodb leads to the agent "vps-1". Add one with a backend on it.'),
        ("vps-2", 'No route of type mongodb leads to the agent "vps-2"; it is quarantined.'),
        ("x", "There is no route of type mongodb that leads to an agent in service."),
    ],
)
def test_where_there_is_no_database_nothing_is_said_twice(name: str, said: str) -> None:
    """What is wrong once, and what to do; whether a repository or a control plane was asked makes no difference."""
    files = {
        "fleet.yaml": documents.fleet(),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2", state="quarantined"),
    }
    with pytest.raises(Rejected) as caught:
        find(name, documents.state_of(files))
    assert str(caught.value).endswith(said)
    assert str(caught.value).count("route of type mongodb") == 1
    assert "state repo" not in str(caught.value)


def test_a_repo_without_databases_says_so() -> None:
    """Also one without a fleet."""
    assert places(State()) == ()
    with pytest.raises(Rejected, match="no route of type mongodb"):
        find("x", documents.state_of({"fleet.yaml": documents.fleet()}))
