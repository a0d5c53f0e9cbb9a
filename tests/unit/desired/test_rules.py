"""Rules of ours, held against requests."""

from __future__ import annotations

import pytest

from reconciler.desired.matching import http_matches, sni_matches
from reconciler.desired.rules import Asked, RuleUnread, fits, misses
from schemas.route import HeaderMatch, PathMatch


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Asked(host="a.test", path="/v1", headers={"x-env": "dev"}), True),
        (Asked(host="a.test", path="/v1/x", headers={"x-env": "dev"}), True),
        (Asked(host="a.test.", path="/v1/x", headers={"x-env": "dev"}), True),
        (Asked(host="a.test", path="/v1", headers={"x-env": "Dev"}), False),
        (Asked(host="a.test", path="/v10", headers={"x-env": "dev"}), False),
        (Asked(host="a.test", path="/v1", method="POST", headers={"x-env": "dev"}), False),
        (Asked(host="b.test", path="/v1", headers={"x-env": "dev"}), False),
    ],
)
def test_a_rule_is_read_as_it_is_written(asked: Asked, expected: bool) -> None:
    """All of host, path, header and method have to fit."""
    (match,) = http_matches(["a.test"], [PathMatch(prefix="/v1")], [HeaderMatch(name="X-Env", value="dev")], ["GET"])
    assert fits(match.rule, asked) is expected


def test_wildcards_cover_one_label() -> None:
    """For hosts and for server names."""
    (http,) = http_matches(["*.a.test"], [])
    (tls,) = sni_matches(["*.a.test"])
    assert fits(http.rule, Asked(host="x.a.test"))
    assert not fits(http.rule, Asked(host="y.x.a.test"))
    assert fits(tls.rule, Asked(server_name="x.a.test"))
    assert not fits(tls.rule, Asked(server_name="a.test"))


def test_what_does_not_fit_is_named() -> None:
    """The conditions that a request misses."""
    (match,) = http_matches(["a.test"], [PathMatch(exact="/x")], [], ["GET"])
    assert misses(match.rule, Asked(host="a.test", path="/y", method="POST")) == ("Path", "Method")


@pytest.mark.parametrize("rule", ["", "Host(`a`", "Host(`a`) &&", "ClientIP(`1`)", "Host(`a`) Host(`b`)", "(Host(`a`)"])
def test_other_rules_are_refused(rule: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(RuleUnread):
        fits(rule, Asked())
