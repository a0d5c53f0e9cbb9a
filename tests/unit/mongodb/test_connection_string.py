"""What is written into a connection string is what a driver reads out of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pymongo.uri_parser import parse_uri

from reconciler.mongodb.connection_string import ConnectionString

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
HOST = "vps-1.mongodb.cloudlunacy.test"


@given(user=TEXT, password=TEXT)
def test_a_driver_reads_what_was_meant(user: str, password: str) -> None:
    """Whatever characters a user and a password hold."""
    one = ConnectionString(HOST, 27018, user, f"a{password}", "shop", "admin", __file__)
    found = parse_uri(str(one))
    assert found["nodelist"] == [(HOST, 27018)]
    assert (found["username"], found["password"], found["database"]) == (user, f"a{password}", "shop")
    assert found["options"]["tls"] is True
    assert (found["options"]["authSource"], found["options"]["tlsCAFile"]) == ("admin", __file__)


def test_it_has_the_documented_form() -> None:
    """Gaps stay readable, and TLS comes first; the password is in no representation."""
    one = ConnectionString(HOST, user="shop", password="<password>", database="shop", auth_source="shop")
    options = "tls=true&authMechanism=SCRAM-SHA-256&directConnection=true&retryWrites=false"
    options += "&serverSelectionTimeoutMS=1500"
    assert str(one) == f"mongodb://shop:<password>@{HOST}:27017/shop?{options}"
    assert "canary" not in repr(ConnectionString(HOST, user="shop", password="canary"))
