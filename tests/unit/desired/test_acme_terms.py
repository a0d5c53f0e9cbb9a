from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from reconciler.desired.acme_terms import order_terms, wants_http01
from schemas.certificate import CertificateSpec
from schemas.fleet import LETS_ENCRYPT, Fleet
from tests.support import documents

TWO = {"own": {"url": "https://acme.test/dir"}, "public": {"url": "https://le.test/dir", "staging": "https://st.test/"}}


def fleet(**acme: Any) -> Fleet:
    return Fleet.model_validate(json.loads(documents.fleet(acme=acme)))


def spec(*names: str, issuer: str = "acme", **acme: Any) -> CertificateSpec:
    said = {"dnsNames": names or ["shop.example.com"], "issuer": issuer} | ({"acme": acme} if acme else {})
    return CertificateSpec.model_validate(said)


def test_what_an_object_leaves_out_is_as_the_fleet_says() -> None:
    """Directory, staging, mail address and agreement come from the fleet."""
    terms = order_terms(spec(), fleet(directories=TWO, directory="public", email="ops@example.com", termsAgreed=True))
    assert terms is not None
    assert (terms.directory, terms.staging) == ("https://le.test/dir", "https://st.test/")
    assert (terms.contact, terms.terms_agreed) == (("ops@example.com",), True)
    assert terms.renew_before == timedelta(days=30)


def test_an_object_may_name_another_directory() -> None:
    """Its staging goes with it."""
    terms = order_terms(spec(directory="own"), fleet(directories=TWO, directory="public"))
    assert terms is not None
    assert (terms.directory, terms.staging, terms.terms_agreed) == ("https://acme.test/dir", "", False)


def test_a_fleet_that_says_nothing_means_lets_encrypt() -> None:
    """Its staging server comes first."""
    terms = order_terms(spec(), fleet())
    assert terms is not None
    assert (terms.directory, terms.staging) == (LETS_ENCRYPT.url, LETS_ENCRYPT.staging)


@pytest.mark.parametrize(
    ("names", "order", "acme", "expected"),
    [
        (["a.test"], {}, {}, "http-01"),
        (["a.test", "*.a.test"], {}, {}, "dns-01"),
        (["a.test"], {}, {"challenge": "dns-01"}, "dns-01"),
        (["a.test"], {"challenge": "http-01"}, {"challenge": "dns-01"}, "http-01"),
    ],
)
def test_how_names_are_proven(names: list[str], order: Any, acme: Any, expected: str) -> None:
    """As the object says, else as the fleet says, else dns-01 for wildcards alone."""
    terms = order_terms(spec(*names, **order), fleet(**acme))
    assert terms is not None
    assert terms.challenge == expected
    names_below = [name.replace("a.test", documents.DOMAIN) for name in names]
    order_of = {"acme": order} if order else {}
    files = {
        "fleet.yaml": documents.fleet(acme=acme),
        "certificates/shop.yaml": documents.certificate("shop", *names_below, issuer="acme", **order_of),
    }
    assert wants_http01(documents.state_of(files)) == (expected == "http-01")


def test_a_certificate_of_another_issuer_is_not_ordered() -> None:
    """Neither is one whose directory the fleet does not have any more."""
    assert order_terms(spec(issuer="internal"), fleet()) is None
    assert order_terms(spec(directory="gone"), fleet()) is None
    assert not wants_http01(documents.state_of({"fleet.yaml": documents.fleet()}))
