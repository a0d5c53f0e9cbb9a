"""Pages of certificates, and of tokens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reconciler.pki.api_tokens import ApiTokens
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event
from reconciler.web.pages.certificate_pages import CertificatePages, CertificateSources
from reconciler.web.pages.lifetimes import lifetime
from reconciler.web.pages.token_pages import TokenPages
from schemas.certificate_status import CertificateStatus, ServedLeaf
from tests.support.documents import agent, certificate, fleet, route, state_of, team
from tests.support.tokens import NOW
from tests.unit.web.pages.visiting import Part, Visit, text_of, visit

AT: Final = dt.datetime.fromtimestamp(NOW, dt.UTC)
NASTY: Final = "<script>alert(1)</script>"
STATUS: Final = CertificateStatus(
    name="shop",
    issuer="acme",
    directory="https://acme.test/directory",
    dns_names=("shop.test",),
    not_before=AT - dt.timedelta(days=70),
    not_after=AT + dt.timedelta(days=20),
    fingerprint="ab" * 32,
    state="Due",
    reason="rateLimited",
    message=NASTY,
    next_look=AT + dt.timedelta(hours=1),
    probe=(ServedLeaf(front="front-1", name="shop.test", checked_at=AT, message=NASTY),),
)


class Fronts:
    """What these pages ask, and what they had done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        files: dict[str, bytes | None] = {
            "fleet.yaml": fleet(team("shop", hostnames=["shop.test"], agents=["vps-1"])),
            "agents/vps-1.yaml": agent("vps-1"),
            "certificates/shop.yaml": certificate("shop", "shop.test"),
            "routes/shop/web.yaml": route("web", "shop.test", tls={}),
        }
        self.published = Published(1, "a" * 40, state_of(files))

    def parts(self, one: Visit) -> Sequence[Part]:
        async def retry(name: str, actor: str) -> bool:
            self.done.append(f"{actor} orders {name}")
            return True

        async def probe(name: str) -> tuple[ServedLeaf, ...]:
            self.done.append(f"probe {name}")
            return STATUS.probe

        def pair(_: str) -> CertificatePair | None:
            return None

        sources = CertificateSources(lambda: (STATUS,), pair, retry, probe, one.asked.store, lambda: self.published)
        return CertificatePages(one.site, sources), TokenPages(one.site, ApiTokens(one.asked.store))


def test_the_life_of_a_certificate_is_a_line() -> None:
    """Now stands where it is, and the tone says whether somebody should look."""
    begun, ends = AT - dt.timedelta(days=70), AT + dt.timedelta(days=20)
    found = lifetime(begun, ends, dt.timedelta(days=30), AT)
    assert found is not None
    assert (found.now, found.renew, found.tone) == (77.78, 66.67, "due")
    over = lifetime(begun, ends, dt.timedelta(days=30), ends + dt.timedelta(days=1))
    assert over is not None
    assert (over.now, over.tone) == (100.0, "over")
    assert lifetime(None, ends, dt.timedelta(days=30), AT) is None


def test_certificates_are_listed_with_what_holds_them_up(tmp_path: Path) -> None:
    """And what others said stays text."""

    async def scenario(one: Visit) -> None:
        answer = await one.get("/certificates")
        assert "20.0 days are left" in answer.text
        assert NASTY not in answer.text
        assert "No certificate fits." in (await one.get("/certificates?text=zzz")).text

    visit(tmp_path, Fronts().parts, scenario)


def test_a_certificate_has_a_page(tmp_path: Path) -> None:
    """Where it is served, what fronts show, what happened to it."""

    async def scenario(one: Visit) -> None:
        await one.asked.store.append(Event(NOW, "CertificateIssued", "info", "certificate/shop", NASTY))
        answer = await one.get("/certificates/shop")
        text = text_of(answer)
        for words in ("shop.test", "Order now", "Ask the fronts", "CertificateIssued", "not this one", "ab" * 32):
            assert words in text
        assert NASTY not in answer.text
        assert 'href="/traffic/shop.test"' in answer.text
        assert "Order now" not in (await one.get("/certificates/shop", "read")).text
        assert (await one.get("/certificates/none")).status_code == 404

    visit(tmp_path, Fronts().parts, scenario)


def test_fronts_are_asked_and_orders_made_by_forms(tmp_path: Path) -> None:
    """By who may operate, from our own pages, and not without end."""
    fronts = Fronts()

    async def scenario(one: Visit) -> None:
        assert (await one.post("/certificates/shop/order", {})).status_code == 303
        assert (await one.post("/certificates/shop/probe", {})).status_code == 303
        assert fronts.done == ["operator:ann orders shop", "probe shop"]
        assert (await one.post("/certificates/shop/order", {}, "read")).status_code == 403
        assert (await one.post("/certificates/shop/order", {}, origin="https://evil.test")).status_code == 403
        found = [(await one.post("/certificates/shop/probe", {})).status_code for _ in range(12)]
        assert 429 in found

    visit(tmp_path, fronts.parts, scenario)


def test_a_token_is_shown_once(tmp_path: Path) -> None:
    """Made by a form, listed without its secret, and ended by a button; for administrators."""

    async def scenario(one: Visit) -> None:
        assert (await one.get("/tokens", "read")).status_code == 403
        wanted = {"name": "ci-1", "kind": "ci", "expires": "1h", "scope": "read"}
        made = await one.post("/tokens", wanted, "admin")
        assert made.status_code == 200
        assert "clt_" in made.text
        assert made.headers["cache-control"] == "no-store"
        listed = await one.get("/tokens", "admin")
        assert "ci-1" in listed.text
        assert "clt_" not in listed.text
        wrong = await one.post("/tokens", {"expires": "soon", "name": NASTY}, "admin")
        assert wrong.status_code == 422
        for words in ("Choose at least one scope.", "Write it like 30d", "small letters, digits"):
            assert words in text_of(wrong)
        assert NASTY not in wrong.text
        again = await one.post("/tokens", wanted, "admin")
        assert again.status_code == 409
        ended = await one.post("/tokens/ci-1/revoke", {}, "admin")
        assert ended.status_code == 303
        assert "revoked" in text_of(await one.get("/tokens", "admin"))
        assert (await one.post("/tokens", wanted, "admin", origin="https://evil.test")).status_code == 403

    visit(tmp_path, Fronts().parts, scenario)
