"""Which certificate serves a host, what is said where none does, and what becomes of one that is still needed."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.certificates import certificates_in_use, desired_certificates, pending
from reconciler.desired.plan import make_plan
from reconciler.desired.restore import KeptOut, restore
from reconciler.desired.state import State
from schemas.objects import ObjectKey
from tests.support.documents import agent, certificate, codes, fleet, parsed, route, secret, settled, state_of, team

HOSTS = ["*.app.cloudlunacy.test", "shop.test", "*.shop.test", "www.shop.test"]
WEB = ObjectKey("Route", "shop", "web")
SHOP = ObjectKey("Certificate", "", "shop")
FILES: dict[str, bytes | None] = {
    "fleet.yaml": fleet(
        team("shop", hostnames=HOSTS, agents=["vps-1"]),
        team("data", hostnames=["data.test"], agents=["vps-1"]),
        entryPoints={"tcp": {"mail": "smtps"}},
    ),
    "agents/vps-1.yaml": agent("vps-1"),
}
TLS: Any = {"mode": "terminate"}
CERTIFICATE, ROUTE = "certificates/shop.yaml", "routes/shop/web.yaml"
BOTH = FILES | {CERTIFICATE: certificate("shop", "shop.test"), ROUTE: route("web", "shop.test", tls=TLS)}


def with_route(*hosts: str, **spec: Any) -> dict[str, bytes | None]:
    return FILES | {ROUTE: route("web", *hosts, **{"tls": TLS, **spec})}


def test_exact_names_come_before_wildcards_and_objects_before_implicit_ones() -> None:
    """A wildcard covers one label, and itself only where somebody names it so."""
    view = state_of(
        FILES
        | {
            "certificates/all.yaml": certificate("all", "*.shop.test"),
            "certificates/www.yaml": certificate("www", "www.shop.test"),
        }
    ).view()
    hosts = {
        "www.shop.test": "www",
        "a.shop.test": "all",
        "*.shop.test": "all",
        "a.b.shop.test": None,
        "shop.test": None,
        "web.app.cloudlunacy.test": "cloudlunacy__app",
        "*.app.cloudlunacy.test": "cloudlunacy__app",
        "vps-1.mongodb.cloudlunacy.test": "cloudlunacy__mongodb",
        "a.web.app.cloudlunacy.test": None,
        "app.cloudlunacy.test": None,
        "x.app.other.test": None,
    }
    assert {host: view.certificate_of(host) for host in hosts} == hosts


@pytest.mark.parametrize(
    "spec",
    [
        {"tls": {"mode": "none"}},
        {"type": "tcp", "entryPoint": "mail", "tls": {"mode": "passthrough"}},
    ],
)
def test_where_tls_does_not_end_no_certificate_is_needed(spec: dict[str, Any]) -> None:
    """Plain routes, and those whose backend ends TLS."""
    assert codes(state_of(with_route("shop.test", **spec))) == {}


def test_apps_and_databases_have_one_by_themselves() -> None:
    """The smallest route and a database need no Certificate object."""
    database = route("db", type="mongodb", tls=TLS)
    assert codes(state_of(with_route() | {"routes/shop/db.yaml": database})) == {}


@pytest.mark.parametrize(
    ("hosts", "spec"),
    [(("shop.test",), {}), (("*.shop.test",), {}), (("shop.test",), {"type": "tcp", "entryPoint": "mail"})],
)
def test_a_host_without_certificate_is_told_what_to_add(hosts: tuple[str, ...], spec: dict[str, Any]) -> None:
    """The hint is a whole document; once it is added the route comes by itself."""
    state = state_of(with_route(*hosts, **spec))
    (finding,) = state.findings[ROUTE]
    assert (finding.code, finding.field) == ("no-certificate", ("spec", "hostnames", 0))
    name = {"shop.test": "shop-test", "*.shop.test": "any-shop-test"}[hosts[0]]
    wanted = f"{{apiVersion: cloudlunacy/v1, kind: Certificate, metadata: {{name: {name}}}, "
    assert f'{wanted}spec: {{dnsNames: ["{hosts[0]}"], issuer: internal}}}}' in finding.hint
    assert WEB not in state.served
    after = settled(state, {f"certificates/{name}.yaml": certificate(name, *hosts)}).state
    assert codes(after) == {}
    assert WEB in after.served


def test_a_named_certificate_that_is_not_the_one_served_is_doubted() -> None:
    """Traefik takes the exact name, whatever the route says."""
    files = with_route("www.shop.test", tls=TLS | {"certificate": "all"})
    files["certificates/all.yaml"] = certificate("all", "*.shop.test")
    assert codes(state_of(files)) == {}
    files["certificates/www.yaml"] = certificate("www", "www.shop.test")
    assert codes(state_of(files)) == {ROUTE: ["certificate-shadowed"]}


def test_a_certificate_that_is_used_is_not_deleted() -> None:
    """Its last good version stays, revision after revision, and goes with the last route; the plan changes nothing."""
    base = state_of(BOTH)
    first = settled(base, {CERTIFICATE: None})
    assert codes(first.state) == {CERTIFICATE: ["certificate-in-use"]}
    assert '"shop.test" (routes/shop/web.yaml)' in first.state.findings[CERTIFICATE][0].message
    assert first.state.served[SHOP].retained
    assert make_plan(base, first).changes == ()

    other = settled(first.state, {"agents/vps-2.yaml": agent("vps-2")}, "b" * 40)
    assert codes(other.state) == {CERTIFICATE: ["certificate-in-use"]}
    assert [change.path for change in make_plan(first.state, other).changes] == ["agents/vps-2.yaml"]

    last = settled(other.state, {ROUTE: None}, "c" * 40)
    assert codes(last.state) == {}
    assert SHOP not in last.state.served
    assert {change.path for change in make_plan(other.state, last).changes} == {CERTIFICATE, ROUTE}


def test_a_certificate_that_comes_back_is_an_ordinary_one_again() -> None:
    """Whoever deleted it by a slip brings the file back."""
    gone = settled(state_of(BOTH), {CERTIFICATE: None}).state
    back = settled(gone, {CERTIFICATE: certificate("shop", "shop.test")}).state
    assert codes(back) == {}
    assert not back.served[SHOP].retained


def test_a_restart_changes_nothing() -> None:
    """What was kept is known afterwards, and goes once nothing needs it."""
    good = [parsed(path, content) for path, content in BOTH.items() if content is not None]
    (last_good,) = [one for one in good if one.path == CERTIFICATE]
    kept = settled(state_of(BOTH), {CERTIFICATE: None}).state
    out = KeptOut(CERTIFICATE, "", None, kept.findings[CERTIFICATE], last_good, None)
    state = restore("b" * 40, [one for one in good if one is not last_good], [out])
    again = settled(state, {}, "c" * 40)
    assert (codes(again.state), again.touched) == ({CERTIFICATE: ["certificate-in-use"]}, frozenset())
    assert codes(settled(again.state, {ROUTE: None}, "d" * 40).state) == {}


@pytest.mark.parametrize(
    "change",
    [
        {CERTIFICATE: None, ROUTE: None},
        {CERTIFICATE: None, ROUTE: route("web", "shop.test")},
        {CERTIFICATE: None, "certificates/new.yaml": certificate("new", "shop.test", "www.shop.test")},
        {CERTIFICATE: certificate("shop", "www.shop.test"), "certificates/new.yaml": certificate("new", "shop.test")},
    ],
)
def test_what_nothing_needs_any_more_goes_at_once(change: dict[str, bytes | None]) -> None:
    """With the route, with TLS, or because another certificate covers the host."""
    assert codes(settled(state_of(BOTH), change).state) == {}


def test_a_name_that_is_used_is_not_taken_out() -> None:
    """The former version stays until the route is changed, then the new one comes by itself."""
    state = settled(state_of(BOTH), {CERTIFICATE: certificate("shop", "www.shop.test")}).state
    assert codes(state) == {CERTIFICATE: ["certificate-in-use"]}
    assert state.view().certificate_of("shop.test") == "shop"
    after = settled(state, {ROUTE: None}).state
    assert codes(after) == {}
    assert after.view().certificate_of("shop.test") is None


def test_a_route_that_names_its_certificate_holds_it() -> None:
    """Also where the fleet file changes in the same commit, so that everything is judged anew."""
    named = BOTH | {ROUTE: route("web", "shop.test", tls=TLS | {"certificate": "shop"})}
    change = {CERTIFICATE: None, "fleet.yaml": fleet(team("shop", hostnames=HOSTS, agents=["vps-1"]))}
    for gone in {CERTIFICATE: None}, change:
        state = settled(state_of(named), gone).state
        assert codes(state) == {CERTIFICATE: ["certificate-in-use"]}
        assert not state.served[WEB].retained


def test_who_takes_one_of_its_names_has_to_wait() -> None:
    """A certificate that is still needed has all of its names back."""
    base = state_of(BOTH | {CERTIFICATE: certificate("shop", "shop.test", "www.shop.test")})
    state = settled(base, {CERTIFICATE: None, "certificates/new.yaml": certificate("new", "www.shop.test")}).state
    assert codes(state) == {CERTIFICATE: ["certificate-in-use"], "certificates/new.yaml": ["certificate-taken"]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"provided": {"team": "shop", "secret": "tls"}}, []),
        ({"provided": {"team": "data", "secret": "tls"}}, ["unknown-secret", "name-not-owned"]),
        ({"provided": {"team": "shop", "secret": "tls", "certificate": "chain"}}, ["unknown-secret-key"]),
    ],
)
def test_who_provides_a_key_must_own_the_names(spec: dict[str, Any], expected: list[str]) -> None:
    """A team that could choose the key of another team's host could be that host."""
    files = FILES | {
        "secrets/shop/tls.yaml": secret("tls", "tls.crt", "tls.key"),
        CERTIFICATE: certificate("shop", "shop.test", **{"issuer": "provided", **spec}),
    }
    assert codes(state_of(files)).get(CERTIFICATE, []) == expected


@pytest.mark.parametrize(
    ("names", "acme", "expected"),
    [
        (["*.shop.test"], None, []),
        (["shop.test"], {"directory": "letsencrypt", "challenge": "http-01"}, []),
        (["shop.test"], {"directory": "letsencrpyt"}, ["unknown-directory"]),
        (["shop.test", "*.shop.test"], {"challenge": "http-01"}, ["wildcard-needs-dns-01"]),
    ],
)
def test_an_acme_server_must_be_known_and_able(names: list[str], acme: Any, expected: list[str]) -> None:
    """A wildcard without further words is proven over DNS."""
    more = {} if acme is None else {"acme": acme}
    state = state_of(FILES | {CERTIFICATE: certificate("shop", *names, issuer="acme", **more)})
    assert codes(state).get(CERTIFICATE, []) == expected


def test_the_wanted_certificates_are_objects_and_implicit_ones() -> None:
    """An object with the same name takes the implicit one's place; one that is retained is wanted as well."""
    state = settled(
        state_of(BOTH | {"certificates/apps.yaml": certificate("apps", "*.app.cloudlunacy.test")}), {CERTIFICATE: None}
    ).state
    found = desired_certificates(state)
    assert {name: (spec.issuer, spec.dns_names) for name, spec in found.items()} == {
        "apps": ("internal", ("*.app.cloudlunacy.test",)),
        "cloudlunacy__fronts": ("internal", ("fronts.cloudlunacy.test",)),
        "cloudlunacy__mongodb": ("internal", ("*.mongodb.cloudlunacy.test",)),
        "shop": ("internal", ("shop.test",)),
    }
    assert certificates_in_use(state) == {WEB: frozenset({"shop"})}
    assert (desired_certificates(State()), certificates_in_use(State())) == ({}, {})


def test_a_new_route_waits_for_its_certificate() -> None:
    """Kept out as any refused one, and in service with the next look once the pair is there."""
    news = settled(State(), BOTH)
    refused = pending(news.state, news.touched, held={})
    assert {key: finding.code for key, finding in refused.items()} == {WEB: "certificate-pending"}
    waiting = settled(State(), BOTH, refused=refused).state
    assert codes(waiting) == {ROUTE: ["certificate-pending"]}

    again = settled(waiting, {}, "b" * 40)
    assert WEB in again.state.served
    assert pending(again.state, again.touched, held={"shop": ("shop.test",)}) == {}
    assert pending(again.state, [SHOP, ObjectKey("Route", "shop", "none")], held={}) == {}
