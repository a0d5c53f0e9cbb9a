"""Rules mean exactly what the fields say, and priorities follow from the fields alone."""

from __future__ import annotations

import pytest

from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.matching import CATCH_ALL_PRIORITY, Match, http_matches, sni_matches
from schemas.route import HeaderMatch, PathMatch

HOST = ("web.example.test",)
TRAEFIKS_LIMIT = 9223372036854774807


def prefix(path: str) -> PathMatch:
    return PathMatch(prefix=path)


def exact(path: str) -> PathMatch:
    return PathMatch(exact=path)


def rules(*args: object, **more: object) -> list[str]:
    return [match.rule for match in http_matches(*args, **more)]  # type: ignore[arg-type]


def priority(*args: object, **more: object) -> int:
    (match,) = http_matches(*args, **more)  # type: ignore[arg-type]
    return match.priority


def test_a_host_alone() -> None:
    """One exact host is one Host matcher."""
    assert rules(HOST, ()) == ["Host(`web.example.test`)"]


def test_the_root_prefix_is_no_condition() -> None:
    """The prefix / covers every path, so it adds nothing and ranks like no path at all."""
    assert http_matches(HOST, [prefix("/")]) == http_matches(HOST, ())


def test_a_prefix_covers_whole_segments() -> None:
    """The prefix /a means /a and what is below /a/, not /ab."""
    assert rules(HOST, [prefix("/a")]) == ["Host(`web.example.test`) && (Path(`/a`) || PathPrefix(`/a/`))"]


def test_a_prefix_with_a_final_slash_covers_what_is_below() -> None:
    """The prefix /a/ does not mean /a."""
    assert rules(HOST, [prefix("/a/")]) == ["Host(`web.example.test`) && PathPrefix(`/a/`)"]


def test_several_hosts_paths_headers_and_methods_are_grouped() -> None:
    """Alternatives are in parentheses, conditions are joined with &&."""
    assert rules(
        ("a.test", "b.test"),
        [exact("/x"), exact("/y")],
        [HeaderMatch(name="X-Beta", value="yes | no")],
        ("GET", "HEAD"),
    ) == [
        (
            "(Host(`a.test`) || Host(`b.test`)) && (Path(`/x`) || Path(`/y`))"
            " && Header(`X-Beta`, `yes | no`) && (Method(`GET`) || Method(`HEAD`))"
        )
    ]


def test_a_wildcard_is_one_anchored_label() -> None:
    """*.parent becomes an anchored expression in which every dot is literal."""
    assert rules(("*.app.example.test",), ()) == [r"HostRegexp(`^[a-z0-9_-]+\.app\.example\.test$`)"]


def test_hosts_of_different_rank_become_separate_matches() -> None:
    """An exact host and a wildcard of one route get a rule each, the exact one first."""
    assert [match.rule for match in http_matches(("*.a.test", "b.test"), ())] == [
        "Host(`b.test`)",
        r"HostRegexp(`^[a-z0-9_-]+\.a\.test$`)",
    ]


def test_paths_of_different_rank_become_separate_matches() -> None:
    """Exact paths come before prefixes, longer prefixes before shorter."""
    found = rules(HOST, [prefix("/a"), prefix("/longer"), exact("/z")])
    assert [rule.partition(" && ")[2] for rule in found] == [
        "Path(`/z`)",
        "(Path(`/longer`) || PathPrefix(`/longer/`))",
        "(Path(`/a`) || PathPrefix(`/a/`))",
    ]


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        (priority(HOST, ()), priority(("*.example.test",), [exact("/a/very/long/path")])),
        (priority(HOST, [exact("/a")]), priority(HOST, [prefix("/a")])),
        (priority(HOST, [exact("/a")]), priority(HOST, [prefix("/" + "a" * 1023)])),
        (priority(HOST, [prefix("/ab")]), priority(HOST, [prefix("/a")])),
        (priority(HOST, [prefix("/a")]), priority(HOST, [])),
        (
            priority(HOST, [prefix("/ab")]),
            priority(HOST, [prefix("/a")], [HeaderMatch(name="A", value="b")] * 16, ("GET",)),
        ),
        (priority(HOST, [], [HeaderMatch(name="A", value="b")]), priority(HOST, [])),
        (priority(HOST, [], [HeaderMatch(name="A", value="b")], ("GET",)), priority(HOST, [], [], ("GET",))),
        (priority(("*.example.test",), []), CATCH_ALL_PRIORITY),
        (TRAEFIKS_LIMIT, priority(HOST, [exact("/" + "a" * 1023)], [HeaderMatch(name="A", value="b")] * 16, ("GET",))),
    ],
)
def test_the_more_specific_rule_wins(stronger: int, weaker: int) -> None:
    """Exact host, then exact path, then longer prefix, then more conditions; all within Traefik's range."""
    assert stronger > weaker


def test_a_longer_rule_gains_nothing() -> None:
    """Two routes of the same rank have the same priority, however many hosts they list."""
    assert priority(("a.test", "b.test", "c.test"), ()) == priority(("a.test",), ())


@pytest.mark.parametrize(
    ("written", "matched"),
    [
        ("/x%20y", "/x y"),
        ("/%7Eme", "/~me"),
        ("/%7eme", "/~me"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb%20c", "/a%2Fb c"),
        ("/100%25", "/100%25"),
    ],
)
def test_paths_are_written_as_traefik_compares_them(written: str, matched: str) -> None:
    """Percent-encoding is undone but for reserved characters, whose hexadecimal digits are upper case."""
    path = PathMatch.model_construct(exact=written, prefix=None)  # the schema lets not all of these pass
    assert rules(HOST, [path]) == [f"Host(`web.example.test`) && Path(`{matched}`)"]


@pytest.mark.parametrize("path", ["/a%60b", "/a%0Ab", "/a%C3%A9", "/a%00", "/a%zz", "/a%2", "/%"])
def test_paths_that_a_rule_cannot_hold_are_refused(path: str) -> None:
    """An encoded back-tick, control character or non-ASCII byte is a problem that names its field."""
    with pytest.raises(CompileProblem) as caught:
        http_matches(HOST, [PathMatch.model_construct(exact=path, prefix=None)])
    assert caught.value.field == ("spec", "paths", 0, "exact")


@pytest.mark.parametrize("host", ["a`) || Host(`victim.test", "a\nb.test", "ä.test", "*.a`b"])
def test_a_host_that_escaped_the_grammar_is_refused(host: str) -> None:
    """Even if the schema let it pass, no back-tick, line end or non-ASCII letter enters a rule."""
    with pytest.raises(CompileProblem, match="visible ASCII"):
        http_matches((host,), ())


def test_server_names_of_tcp_routes() -> None:
    """Exact server names outrank wildcards, and both outrank the catch-all."""
    assert sni_matches(["db.test", "*.db.test"]) == [
        Match("HostSNI(`db.test`)", 3000),
        Match(r"HostSNIRegexp(`^[a-z0-9_-]+\.db\.test$`)", 2000),
    ]
