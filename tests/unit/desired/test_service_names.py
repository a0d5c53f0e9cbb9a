"""Which names the certificates of services carry, and who is told when they change."""

from __future__ import annotations

from typing import Any, Final

import pytest

from reconciler.desired.items import AgentItems
from reconciler.desired.plan import make_plan
from reconciler.desired.revoked import findings_of
from reconciler.desired.service_names import ServiceNames
from reconciler.desired.state import State
from schemas.objects import ObjectKey
from schemas.session import Item
from tests.support.documents import agent, deployment, fleet, route, settled, state_of, team

WEB: Final = ObjectKey("Deployment", "shop", "web")
ITEM: Final = "Certificate/shop/web"
OWN: Final = ["vps-1.agents.cloudlunacy.test", "web.vps-1.agents.cloudlunacy.test"]


def files(*names: str, routes: dict[str, bytes] | None = None, **spec: Any) -> dict[str, bytes]:
    """Two teams that share a wildcard; the deployment ``web`` of one with a certificate for ``names``."""
    shared = ["*.app.cloudlunacy.test"]
    teams = [team(name, hostnames=shared, agents=["vps-1", "vps-2"]) for name in ("data", "shop")]
    where = spec.pop("where", ("vps-1",))
    tls = {"dnsNames": list(names), **spec}
    return {
        "fleet.yaml": fleet(*teams),
        "agents/vps-1.yaml": agent("vps-1"),
        "agents/vps-2.yaml": agent("vps-2"),
        "deployments/shop/web.yaml": deployment("web", *where, port=8443, tls=tls),
        **(routes or {}),
    }


def to_web(*hosts: str, **spec: Any) -> bytes:
    return route("web", *hosts, backends=[{"deployment": "web"}], **spec)


def item(state: State, name: str = "vps-1") -> Item:
    (found,) = [one for one in AgentItems(state).of(name) if one.id == ITEM]
    return found


def codes(state: State) -> list[str]:
    return [one.code for one in findings_of(state).get(WEB.path, ())]


def test_a_service_has_the_names_of_its_agent_by_itself() -> None:
    """Each agent is told of its own two names, with the rest of what the deployment says."""
    reload = {"signal": "HUP", "pidFile": "/run/web/web.pid"}
    state = state_of(files(where=("vps-1", "vps-2"), lifetime="24h", directory="/etc/web", group="web", reload=reload))
    assert item(state).spec == {
        "dnsNames": OWN,
        "lifetime": "24h",
        "keyType": "p-256",
        "directory": "/etc/web",
        "group": "web",
        "reload": reload,
    }
    assert item(state, "vps-2").spec["dnsNames"] == [name.replace("vps-1", "vps-2") for name in OWN]
    assert not codes(state)


def test_a_deployment_without_tls_has_no_certificate() -> None:
    """Documents are what they were before there were such certificates."""
    plain = {**files(), "deployments/shop/web.yaml": deployment("web", "vps-1")}
    assert [one.id for one in AgentItems(state_of(plain)).of("vps-1")] == ["Agent/vps-1", "Deployment/shop/web"]


def test_what_is_made_later_equals_what_is_made_now() -> None:
    """The maker that is kept for agents that may never ask makes the same items."""
    items = AgentItems(state_of(files("web.app.cloudlunacy.test", routes={"routes/shop/web.yaml": to_web()})))
    assert items.maker("vps-1")() == items.of("vps-1")


@pytest.mark.parametrize(
    "backend", [{"deployment": "web"}, {"agent": "vps-1", "port": 8443}], ids=["by-name", "by-agent-and-port"]
)
def test_a_host_that_a_route_sends_here_may_be_listed(backend: dict[str, Any]) -> None:
    """Whether the backend names the deployment, or the port that it has on its agent."""
    sent = route("web", "a.app.cloudlunacy.test", backends=[backend])
    state = state_of(files("a.app.cloudlunacy.test", routes={"routes/shop/web.yaml": sent}))
    assert item(state).spec["dnsNames"] == ["a.app.cloudlunacy.test", *OWN]
    assert not codes(state)


@pytest.mark.parametrize(
    "name",
    [
        "bank.example.com",
        "cloudlunacy.test",
        "*.cloudlunacy.test",
        "vps-2.agents.cloudlunacy.test",
        "api.vps-1.agents.cloudlunacy.test",
        "*.agents.cloudlunacy.test",
        "*.vps-1.agents.cloudlunacy.test",
        "vps-2.mongodb.cloudlunacy.test",
        "*.mongodb.cloudlunacy.test",
        "a.b.app.cloudlunacy.test",
    ],
)
def test_a_strangers_name_is_refused(name: str) -> None:
    """Hosts of nobody or of others, names of other agents and wildcards over agents keep the deployment out."""
    state = state_of(files(name))
    assert codes(state) == ["service-name-not-granted"]
    assert WEB not in state.served


def test_a_host_of_a_shared_wildcard_needs_a_route() -> None:
    """Another team's host below a wildcard that both may claim is left out of the certificate, with a warning."""
    theirs = route("pay", "pay.app.cloudlunacy.test", backends=[{"agent": "vps-1", "port": 9000}])
    state = state_of(files("pay.app.cloudlunacy.test", routes={"routes/data/pay.yaml": theirs}))
    assert item(state).spec["dnsNames"] == OWN
    assert codes(state) == ["service-name-unrouted"]
    assert WEB in state.served


def test_a_route_elsewhere_gives_no_name() -> None:
    """A host of the same team that goes to another deployment is not this service's."""
    more = {
        "deployments/shop/api.yaml": deployment("api", "vps-1", port=8444),
        "routes/shop/api.yaml": route("api", "api.app.cloudlunacy.test", backends=[{"deployment": "api"}]),
    }
    state = state_of(files("api.app.cloudlunacy.test", routes=more))
    assert item(state).spec["dnsNames"] == OWN
    assert codes(state) == ["service-name-unrouted"]


def test_a_database_may_have_the_name_of_its_route() -> None:
    """Each agent gets the name of its own database, where the TLS of clients reaches it."""
    names = ["vps-1.mongodb.cloudlunacy.test", "vps-2.mongodb.cloudlunacy.test"]
    spec = {"type": "mongodb", "tls": {"mode": "passthrough"}, "backends": [{"deployment": "web"}]}
    sent = {"routes/shop/db.yaml": route("db", **spec)}
    state = state_of(files(*names, where=("vps-1", "vps-2"), routes=sent))
    assert names[0] in item(state).spec["dnsNames"]
    assert names[1] not in item(state).spec["dnsNames"]
    assert names[1] in item(state, "vps-2").spec["dnsNames"]
    assert not codes(state)


def test_a_route_that_comes_or_goes_changes_the_document() -> None:
    """The plan names the agent whose certificate gets or loses a name."""
    host = "a.app.cloudlunacy.test"
    before = state_of(files(host))
    after = settled(before, {"routes/shop/web.yaml": to_web(host)})
    assert [one.changed for one in make_plan(before, after).agents] == [(ITEM,)]
    gone = settled(after.state, {"routes/shop/web.yaml": None})
    assert [one.changed for one in make_plan(after.state, gone).agents] == [(ITEM,)]
    assert item(gone.state).spec["dnsNames"] == OWN


def test_another_domain_changes_the_document() -> None:
    """The names follow the fleet's domain."""
    before = state_of(files())
    teams = [team(name, hostnames=[], agents=["vps-1", "vps-2"]) for name in ("data", "shop")]
    after = settled(before, {"fleet.yaml": fleet(*teams, domain="example.org")})
    assert [one.name for one in make_plan(before, after).agents] == ["vps-1"]
    assert item(after.state).spec["dnsNames"] == [name.replace("cloudlunacy.test", "example.org") for name in OWN]


def test_a_name_that_is_too_long_is_left_out() -> None:
    """What would be no DNS name any more is not in the certificate."""
    long = ".".join(["d" * 63, "e" * 63, "f" * 63, "g" * 47])
    found = files()
    found["fleet.yaml"] = fleet(team("shop", agents=["vps-1"]), domain=long)
    assert item(state_of(found)).spec["dnsNames"] == [f"vps-1.agents.{long}"]


@pytest.mark.parametrize(
    "tls",
    [
        {"lifetime": "59m"},
        {"lifetime": "2161h"},
        {"reload": {}},
        {"reload": {"signal": "HUP"}},
        {"reload": {"pidFile": "/run/a.pid"}},
        {"reload": {"signal": "KILL", "pidFile": "/run/a.pid"}},
        {"reload": {"command": "reload", "signal": "HUP", "pidFile": "/run/a.pid"}},
        {"directory": "/etc/../root"},
        {"directory": "relative"},
        {"directory": "/"},
        {"group": "a b", "directory": "/etc/a"},
        {"group": "a"},
        {"keyType": "dsa"},
    ],
)
def test_what_cannot_be_meant_is_refused(tls: dict[str, Any]) -> None:
    """Life, reload, paths and group have a form."""
    state = state_of(files(**tls))
    assert codes(state) == ["invalid-value"]


def test_nothing_is_asked_of_a_state_without_a_fleet() -> None:
    """Before the first commit there are no names."""
    assert list(ServiceNames(State()).unrouted()) == []
