"""Every field that somebody else fills, with an attack in it, on every page of a running control plane (threat 18).

The fields are found in the models themselves, so that a new one is in the table before anybody thinks of it. Then one
pass of a browser over all pages, as administrators with a phone, says that nothing of it is more than text.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import pytest
from playwright.sync_api import Browser, Route

from reconciler.pki.keystore import KeyStore
from schemas.objects import KINDS
from schemas.session import CloseCode
from tests.integration.browser.test_every_page import FOR_STRANGERS, PAGES
from tests.integration.test_access_matrix import TABLE, Plane
from tests.support.browser import PHONE, window
from tests.support.documents import DOMAIN
from tests.support.fleet import Installation, installation
from tests.support.payload_agents import HostileAgents, asked_by_http
from tests.support.payload_agents import leaves as leaves_of_agents
from tests.support.payload_files import (
    AGENTS,
    COUNT,
    SPARE,
    TOLD,
    Files,
    Refusal,
    accepted,
    live,
    odd,
    refused,
    tell,
)
from tests.support.payload_leaves import Shape
from tests.support.payload_people import People, wait_for_words, webhook
from tests.support.payload_walk import Walk
from tests.support.payloads import MORE_PAYLOADS, Table, look
from tests.support.tokens import new_key, thumbprint

SECRET: Final = b"the secret of the git host"
SELDOM: Final = {"/certificates/{name}/order": "/certificates/apps/order"}
"""Forms that are there only while an ACME server is waited for."""
HARMLESS: Final = frozenset({4, 13, 15})
"""Payloads that are for templates, for who decodes twice, and for quotes of another kind."""
TRIED: Final = frozenset({"query", "path", "form", "cookie"})
"""What pages are asked and sent; that some of it is said again is not needed."""
NOT_SHOWN: Final[Mapping[tuple[str, str], str]] = {
    ("CertificateRequest", "id"): "answered to the agent that asks",
    ("CertificateRequest", "csr"): "its key counts, and nothing else of it",
    ("Commit", "body"): "only its trailers are read",
    ("Commit", "e-mail"): "the API alone tells it",
    ("Features", "features.[]"): "what is not known is not kept",
    ("Observation", "deployments.[].digest"): "compared, and told by the API alone",
    ("SecretsRequest", "id"): "answered to the agent that asks",
    ("person", "restore"): "the timeline leaves arguments out, since they may be secret",
    ("person of a provider", "groups"): "pages say what they give, and the API what they are",
    ("person of a provider", "subject"): "the API alone tells it",
    ("webhook", "body"): "its signature is checked, and nothing in it is read",
}
"""What is taken and shown on no page whole, and why."""


@dataclass
class World:
    """What was supplied, to a control plane that goes on running."""

    one: Installation
    table: Table
    people: People
    files: list[str] = field(default_factory=list)
    wrong: dict[str, Refusal] = field(default_factory=dict)
    revisions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Revision → what its page says."""
    plane: Plane | None = None
    agents: HostileAgents | None = None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everybody has said everything, once."""
    folder, table = tmp_path_factory.mktemp("payloads"), Table()
    keys = {name: new_key() for name in (*AGENTS, *SPARE)}
    (folder / "webhook").write_bytes(SECRET)
    data = folder / "one" / "data"
    data.mkdir(parents=True)
    people = People(table)
    people.begin(data)
    files = live(table, KeyStore(data / "keys").recipient(), {name: thumbprint(key) for name, key in keys.items()})
    with installation(folder / "one", files, traefik=False, start=False) as one:
        one.environment["CLOUDLUNACY_WEBHOOK_SECRET_FILE"] = str(folder / "webhook")
        one.start()
        found = one.status_wait(one.repo.tip() or "", "Progressing", "Converged")
        assert not found["quarantined"], found["quarantined"][:5]
        world = World(one, table, people, list(files))
        supply(world, files)
        world.plane = Plane(one, keys)
        with HostileAgents(one, table, AGENTS, world.plane.of_agent) as world.agents:
            wait_for_words(one, COUNT - 1)
            people.act(one)
            webhook(one, _signed, table)
            held = one.push({TOLD: None}, "Delete more than may go")
            one.status_wait(held, "Held")
            world.revisions[held] = ()
            yield world


def supply(world: World, files: Files) -> None:
    """Push what is refused: each version of the fleet file by itself, then all else at once, then what commits say."""
    one, table = world.one, world.table
    for number, wrong in enumerate(refused(table, "Fleet")):
        revision = one.push({wrong.path: wrong.content}, f"Fleet {number}")
        _looked_at(one, revision)
        world.revisions[revision] = wrong.signs
    for kind in KINDS:
        if kind != "Fleet":
            world.wrong |= {wrong.path: wrong for wrong in refused(table, kind)}
    more = odd(table)
    everything = {path: wrong.content for path, wrong in world.wrong.items()}
    revision = one.push({"fleet.yaml": files["fleet.yaml"], **everything, **more}, "All that is refused")
    _looked_at(one, revision)
    world.revisions[revision] = ()
    world.files += [path for path in more if re.fullmatch(r"(routes/shop/raw|agents/said)(-[0-9]+)?\.yaml", path)]
    revision = tell(table, one.repo)
    _looked_at(one, revision)
    world.revisions[revision] = ()


def _looked_at(one: Installation, revision: str) -> None:
    one.status_wait(revision, "Progressing", "Converged", "Held", "Failed")


def _signed(body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.new(SECRET, body, hashlib.sha256).hexdigest()}"}


# --- the table is whole -------------------------------------------------------------------------------------------


def test_every_leaf_of_every_object_is_in_the_table(world: World) -> None:
    """With each payload that validation takes there, and with several that it does not."""
    for kind, model in KINDS.items():
        shape, there = Shape(model), world.table.are(kind)
        for path in shape.leaves():
            leaf = ".".join(path)
            takes = accepted(kind).get(leaf, set())
            assert len(there.get(leaf, ())) >= 3, f"{kind}: nothing is tried at {leaf}"
            assert takes <= there[leaf], f"{kind}: {leaf} takes payloads that are in no file"


def test_every_leaf_of_every_message_is_in_the_table(world: World) -> None:
    """What an agent may say is said by agents; what they may not ends their session."""
    assert world.agents is not None
    codes = world.agents.refusals()
    for (message, path), takes in leaves_of_agents().items():
        leaf = ".".join(path)
        assert takes <= world.table.are(message).get(leaf, set()), f"{message}: {leaf} takes payloads that nobody says"
        if len(takes) < COUNT:
            assert codes[message, leaf] == CloseCode.PROTOCOL_ERROR, f"{message}: {leaf}"


def test_what_agents_ask_for_takes_no_payload(world: World) -> None:
    """In no field of enrolment, routes and certificates; each is refused in JSON, which no browser takes for a page."""
    assert world.plane is not None
    for path, leaf, answer in asked_by_http(world.one, world.table, new_key(), world.plane.of_agent):
        if leaf:
            assert answer.status_code in (400, 401, 403, 422), f"{path} {leaf}: {answer.text}"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-content-type-options"] == "nosniff"
        else:
            assert answer.is_success, f"{path}: {answer.text}"


# --- the pass -----------------------------------------------------------------------------------------------------


def pages_of(world: World) -> dict[str, list[str]]:
    """Return endpoint → what of it is opened."""
    newest = list(world.revisions)[-1]
    edited = ("routes/shop/web.yaml", "fleet.yaml", "routes/shop/raw-5.yaml")
    return {
        **{path: [path] for path in PAGES if "{" not in path},
        "/traffic/{host}": [f"/traffic/{name}.app.{DOMAIN}" for name in ("web", "told", "two", "changed")],
        "/agents/{name}": [f"/agents/{name}" for name in (*AGENTS, *SPARE)],
        "/agents/new/{name}": ["/agents/new/spare-5"],
        "/deployments/{team}/{name}": ["/deployments/shop/web", "/deployments/shop/as-0", "/deployments/shop/orders"],
        "/deployments/{team}/{name}/logs": [f"/deployments/shop/web/logs?agent={name}" for name in AGENTS],
        "/databases/{team}/{name}": ["/databases/shop/orders"],
        "/databases/{team}/{name}/backups": ["/databases/shop/orders/backups"],
        "/certificates/{name}": ["/certificates/apps"],
        "/revisions/{revision}": [f"/revisions/{one}" for one in (*world.revisions, "newest")],
        "/revisions/{revision}/revert": [f"/revisions/{newest}/revert"],
        "/objects/{path:path}": [
            *(f"/objects/{path}" for path in (*world.files, *world.wrong)),
            *(f"/objects/{path}?edit=1" for path in edited),
        ],
    }


def test_every_page_has_its_turn(world: World) -> None:
    """No page that the control plane serves to people is left out of the pass."""
    assert pages_of(world).keys() == PAGES.keys()


def test_what_is_more_than_text_is_found_out(browser: Browser) -> None:
    """A page that wrote a payload as it is would be noticed, be it in its text, in an attribute or in a link."""
    noticed = set()
    with window(browser, "https://page.test", width=PHONE) as one:
        for number, payload in enumerate(MORE_PAYLOADS):
            for page in (payload, f'<i title="{payload}">', f"<i title='{payload}'>", f'<a href="{payload}">'):
                one.page.route("**/*", partial(_answer, f"<main>{page}</main>"))
                noticed |= {number} if look(one.open("/")).wrong else set()
    assert noticed == set(range(COUNT)) - HARMLESS


def _answer(page: str, route: Route) -> None:
    route.fulfill(body=f"<!doctype html><meta charset=utf-8>{page}", content_type="text/html")


@pytest.mark.timeout(600)
def test_whatever_was_said_is_text(world: World, browser: Browser) -> None:
    """On every page: nothing runs, nothing leads elsewhere, nothing is drawn, and all of it can be read on a phone."""
    with window(browser, world.one.url, width=PHONE) as one:
        walk = Walk(one, world.table, world.people.cookies)
        walk.follow(path for paths in pages_of(world).values() for path in paths)
        for endpoint, paths in pages_of(world).items():
            walk.ask(paths[0].partition("?")[0])
            if "{" in endpoint:
                walk.name(endpoint)
        walk.name("/{nothing}")
        walk.notice("/secrets")
        forms = {**SELDOM, **{endpoint_of(path): path for method, path in walk.forms if method == "post"}}
        for endpoint in sorted(forms.keys() - {"/logout"}):
            walk.fill(endpoint, forms[endpoint])
        walk.send("/login/link", [("key", world.table.put("form", "/login/link key", 0))])
        walk.log_out()
        walk.follow(path for paths in FOR_STRANGERS.values() for path in paths)
        for path in FOR_STRANGERS:
            walk.ask(path)
    assert walk.found == []
    for address, signs in told(world).items():
        assert [sign for sign in signs if sign not in walk.opened[address]] == [], address
    unseen = world.table.unseen()
    assert {at for at in unseen if at[0] not in TRIED and not at[0].startswith("refused")} == NOT_SHOWN.keys()
    assert forms.keys() | {"/login/link"} == {
        path for (method, path), row in TABLE.items() if method == "POST" and row.body in ("form", "logout")
    }


def told(world: World) -> dict[str, tuple[str, ...]]:
    """Return address → what is to be said there of the places of a file that hold what is refused."""
    return {f"/objects/{path}": one.signs for path, one in world.wrong.items()} | {
        f"/revisions/{revision}": signs for revision, signs in world.revisions.items()
    }


def endpoint_of(path: str) -> str:
    """Return the row of the table that a form leads to."""
    return next(
        at
        for method, at in TABLE
        if method == "POST" and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+:path\}", ".+", at)), path)
    )
