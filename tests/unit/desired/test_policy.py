"""Each rule, by what a person is told. Everything else in the fleet is right."""

from __future__ import annotations

from typing import Any, Final

import pytest

from schemas.objects import ObjectKey
from tests.support.documents import (
    agent,
    certificate,
    deployment,
    document,
    fleet,
    problems_of,
    route,
    secret,
    state_of,
    team,
)

FILES: Final = {
    "fleet.yaml": fleet(
        team(
            "shop",
            hostnames=["*.app.cloudlunacy.test", "shop.example.test"],
            agents=["vps-1"],
            ports=[{"first": 8000, "last": 8999}],
        ),
        team("data", agents=["vps-2"]),
        entryPoints={"tcp": {"smtp": "mail"}},
    ),
    "agents/vps-1.yaml": agent("vps-1", labels={"region": "ams"}, capabilities=["container"]),
    "agents/vps-2.yaml": agent("vps-2"),
    "certificates/shop.yaml": certificate("shop", "shop.example.test"),
    "secrets/shop/db.yaml": secret("db", "password"),
    "deployments/shop/api.yaml": deployment(
        "api", "vps-1", ports=[{"name": "http", "container": 80, "host": 8001}, {"container": 90, "host": 8002}]
    ),
}


def said(path: str, content: bytes, **files: Any) -> list[str]:
    """Return what is said about one more file, without its own path."""
    everything = {**FILES, **files, path: content}
    problems = problems_of(state_of(everything), everything)
    return [f"{one.code}: {one.message} {one.hint}" for one in problems if one.file == path]


def of_image(image: str, images: list[str]) -> list[str]:
    granted = fleet(team("shop", agents=["vps-1"], ports=[{"first": 8000, "last": 8999}], images=images))
    return said("deployments/shop/web.yaml", deployment("web", "vps-1", image=image), **{"fleet.yaml": granted})


def test_images_are_those_of_the_teams_list() -> None:
    """With a list nothing else runs, and an empty one lets nothing run; the whole name is said."""
    assert of_image("ghcr.io/shop/web:2", ["ghcr.io/shop/*"]) == []
    assert of_image("nginx:1.29", ["nginx"]) == []
    assert of_image("nginx:1.29", ["ghcr.io/shop/*"]) == [
        (
            'image-not-granted: team "shop" may not run image "nginx:1.29" (docker.io/library/nginx). '
            "Grant it in fleet.yaml under teams, shop, images; it has: ghcr.io/shop/*."
        )
    ]
    (refused,) = of_image("nginx:1.29", [])
    assert refused.endswith("it has: none.")


def of_route(*hostnames: str, **spec: Any) -> list[str]:
    spec.setdefault("backends", [{"agent": "vps-1", "port": 8081}])
    return said("routes/shop/web.yaml", route("web", *hostnames, **spec))


def of_deployment(*agents: str, **spec: Any) -> list[str]:
    return said("deployments/shop/web.yaml", deployment("web", *agents, **spec))


def test_a_route_within_its_rights_is_told_nothing() -> None:
    """Own hosts, granted agents and ports, known secrets and certificates."""
    password = [{"basicAuth": {"secret": {"name": "db", "key": "password"}}}]
    assert of_route("shop.example.test", tls={"certificate": "shop"}, middlewares=password) == []
    assert of_route("x.app.cloudlunacy.test", backends=[{"deployment": "api", "portName": "http"}]) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"backends": [{"agent": "vps-9", "port": 8081}]},
            'unknown-agent: backend names agent "vps-9", which does not exist. Did you mean "vps-2"?',
        ),
        (
            {"backends": [{"deployment": "ap"}]},
            'unknown-deployment: backend names deployment "ap", which does not exist. Did you mean "api"?',
        ),
        (
            {"tls": {"certificate": "other"}},
            (
                'unknown-certificate: spec.tls names certificate "other", which does not exist. '
                "Add certificates/other.yaml, or name another one."
            ),
        ),
        (
            {"middlewares": [{"basicAuth": {"secret": {"name": "zzz", "key": "k"}}}]},
            (
                'unknown-secret: spec.middlewares names secret "zzz", which does not exist. '
                "Add secrets/shop/zzz.yaml, or name another one."
            ),
        ),
        (
            {"middlewares": [{"basicAuth": {"secret": {"name": "db", "key": "pasword"}}}]},
            'unknown-secret-key: secret "db" has no key "pasword". Did you mean "password"?',
        ),
        (
            {"backends": [{"agent": "vps-2", "port": 8081}]},
            (
                'agent-not-granted: team "shop" may not use agent "vps-2". '
                "Grant it in fleet.yaml under teams, shop, agents, or use another agent."
            ),
        ),
        (
            {"hostnames": ["bank.example.test"]},
            (
                'host-not-owned: team "shop" does not own "bank.example.test". It owns: *.app.cloudlunacy.test, '
                "shop.example.test. Grant the host in fleet.yaml, or use one of these."
            ),
        ),
        (
            {"backends": [{"agent": "vps-1", "port": 22}]},
            'port-not-granted: team "shop" may not use port 22. It may use 8000-8999 (fleet.yaml).',
        ),
        (
            {"backends": [{"deployment": "api"}]},
            (
                'unknown-port: deployment "api" has no single port that fits; it has: http (80), - (90). '
                "Name one with port or portName."
            ),
        ),
        (
            {"type": "tcp", "entryPoint": "smpt"},
            'unknown-entry-point: the fleet has no TCP entry point "smpt". Did you mean "smtp"?',
        ),
        (
            {"tls": {"certificate": "shop"}},
            (
                'certificate-does-not-cover: certificate "shop" does not cover "web.app.cloudlunacy.test". '
                "It covers: shop.example.test. Add the host to its dnsNames, or name another one."
            ),
        ),
    ],
)
def test_a_route_is_told_what_is_wrong_and_what_to_do(spec: dict[str, Any], expected: str) -> None:
    """Every rule speaks in a whole sentence."""
    assert of_route(**spec) == [expected]


@pytest.mark.parametrize(
    "host", ["*.example.test", "a.b.app.cloudlunacy.test", "app.cloudlunacy.test", "*.shop.example.test"]
)
def test_a_grant_covers_one_label_and_nothing_else(host: str) -> None:
    """Neither the parent, nor the child of a child, nor a wildcard beside the granted one."""
    assert [text.split(":")[0] for text in of_route(host)] == ["host-not-owned"]


def test_everything_wrong_is_said_at_once() -> None:
    """The first mistake does not hide the second."""
    found = of_route("x.test", backends=[{"agent": "vps-9", "port": 22}])
    assert [text.split(":")[0] for text in found] == ["unknown-agent", "host-not-owned", "port-not-granted"]


@pytest.mark.parametrize(
    ("agents", "spec", "expected"),
    [
        (
            ["vps-1"],
            {"type": "process", "image": None, "command": ["x"], "ports": [{"container": 8081, "host": 8081}]},
            (
                'agent-lacks-capability: agent "vps-1" cannot run type process; it can run container. '
                "Add process to its capabilities in agents/vps-1.yaml, or move it."
            ),
        ),
        (
            ["vps-1"],
            {"port": 22},
            'port-not-granted: team "shop" may not use port 22. It may use 8000-8999 (fleet.yaml).',
        ),
        (
            ["vps-2"],
            {},
            (
                'agent-not-granted: team "shop" may not use agent "vps-2". '
                "Grant it in fleet.yaml under teams, shop, agents, or use another agent."
            ),
        ),
        (
            [],
            {"agentSelector": {"region": "fra"}},
            (
                'selects-no-agent: no agent of team "shop" carries the labels region=fra; the deployment runs nowhere. '
                "Label an agent."
            ),
        ),
        (
            ["vps-1"],
            {"secrets": [{"env": "P", "secret": "db", "key": "nothing"}]},
            'unknown-secret-key: secret "db" has no key "nothing". It has: password.',
        ),
    ],
)
def test_a_deployment_is_told_what_is_wrong_and_what_to_do(
    agents: list[str], spec: dict[str, Any], expected: str
) -> None:
    """Its agents, ports and secrets are checked like a route's."""
    assert of_deployment(*agents, **spec) == [expected]


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        ({"volumes": [{"name": "a", "path": "/usr/bin"}]}, "/usr/bin", "is at, above or below /usr"),
        ({"volumes": [{"name": "a", "path": "//nix/./"}]}, "//nix/./", "is at, above or below /nix/store"),
        (
            {"secretFiles": [{"path": "/etc/ld.so.preload", "secret": "db", "key": "password"}]},
            "/etc/ld",
            "/etc, which",
        ),
        (
            {
                "volumes": [{"name": "a", "path": "/data"}],
                "secretFiles": [{"path": "/data/key", "secret": "db", "key": "password"}],
            },
            "/data/key",
            "is in /data",
        ),
    ],
)
def test_a_program_has_nothing_over_the_system(spec: dict[str, Any], field: str, why: str) -> None:
    """Volumes and files of a program lie beside the system's directories and beside each other."""
    program = {"type": "process", "image": None, "command": ["x"], "ports": [], **spec}
    said_of_it = [text for text in of_deployment("vps-1", **program) if text.startswith("mount-reserved: ")]
    assert len(said_of_it) == 1
    assert field in said_of_it[0]
    assert why in said_of_it[0]
    assert not [text for text in of_deployment("vps-1", **spec) if text.startswith("mount-reserved")]


def test_secrets_and_deployments_of_another_team_do_not_exist() -> None:
    """A name is looked up in the own team alone."""
    path = "routes/data/x.yaml"
    found = said(path, route("x", backends=[{"deployment": "api"}, {"agent": "vps-2", "port": 1024}]))
    assert [text.split(":")[0] for text in found] == ["unknown-deployment"]


def test_a_certificate_may_hold_only_names_of_the_fleet() -> None:
    """The own domain, what is below it, and hosts that some team owns."""
    own = ["cloudlunacy.test", "*.cloudlunacy.test", "a.b.cloudlunacy.test", "*.app.cloudlunacy.test"]
    assert said("certificates/own.yaml", certificate("own", *own)) == []
    found = said("certificates/own.yaml", certificate("own", "victim.test", "*.example.test", "evilcloudlunacy.test"))
    assert [text.split(":")[0] for text in found] == ["name-not-owned"] * 3


def test_an_unknown_team_is_told_the_similar_one() -> None:
    """Nothing else is checked then."""
    found = said("routes/shpo/x.yaml", route("x", backends=[{"agent": "nobody", "port": 1}]))
    assert found == ['unknown-team: the fleet has no team "shpo". Did you mean "shop"?']


def test_kinds_of_traffic_do_not_share_an_entry_point() -> None:
    """A TCP route on the HTTPS entry point would take other teams' requests."""
    shared = fleet(team("shop"), entryPoints={"tcp": {"smtp": "websecure"}})
    assert said("fleet.yaml", shared) == [
        (
            'entry-point-shared: entryPoints.tcp.smtp is "websecure", and so is entryPoints.https. '
            "Give each its own entry point: routes of one kind would take the other's requests."
        )
    ]
    twice = fleet(team("shop"), entryPoints={"tcp": {"smtp": "mail", "submission": "mail"}})
    assert said("fleet.yaml", twice) == []


def test_a_backend_has_the_agents_own_address() -> None:
    """There is no field by which a route could reach any other address."""
    assert "unknown-field" in of_route(backends=[{"agent": "vps-1", "port": 8081, "address": "10.0.0.1"}])[0]


def test_the_long_list_of_a_hint_is_cut() -> None:
    """A hint names at most ten of many."""
    many = fleet(team("shop", hostnames=[f"h{number}.test" for number in range(200)], agents=["vps-1"]))
    (text,) = said("routes/shop/web.yaml", route("web", "x.test"), **{"fleet.yaml": many})
    assert "h9.test and 190 more" in text


def test_similar_names_are_looked_for_only_so_often() -> None:
    """Hundreds of wrong names in a large fleet cost no more than a hundred searches."""
    names = [f"vps-{number}" for number in range(600)]
    files = {f"agents/{name}.yaml": agent(name) for name in names}
    view = state_of({"fleet.yaml": FILES["fleet.yaml"], **files}).view()
    hints = [view.similar_name(ObjectKey("Agent", "", f"vsp-{number}")) for number in range(300)]
    assert hints[7] == 'Did you mean "vps-7"?'
    assert all(hints[:100])
    assert not any(hints[100:])


def test_a_document_may_come_as_any_yaml() -> None:
    """The builders of these tests and the contract's example mean the same."""
    content = document("Route", "web", {"type": "http", "backends": [{"agent": "vps-1", "port": 8081}]})
    assert said("routes/shop/web.yaml", content) == []
