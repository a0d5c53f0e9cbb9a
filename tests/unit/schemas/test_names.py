from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas import names
from schemas.agent import AgentSpec
from schemas.names import covers, overlaps, seconds, size_in_bytes

GRAMMAR: dict[str, tuple[Any, list[str], list[str]]] = {
    "Name": (
        names.Name,
        ["a", "web", "vps-1", "0", "x" * 63, "con-1"],
        ["", "-a", "a-", "A", "a_b", "a.b", "x" * 64, "ä", "a\n", "a b", "../a", "{{a}}", "a\u0000"],
    ),
    "Hostname": (
        names.Hostname,
        ["a.b", "web.app.example.com", "xn--bcher-kva.example", "1.2.example.com", f"{'x' * 63}.de"],
        [
            "", "localhost", "a..b", ".a.b", "a.b.", "A.b", "*.a.b", "a_b.c", "10.0.0.1", "a.b\n", "a.1",
            f"{'x' * 64}.de", "a.b`) || Host(`c.d", "a.{{ env }}", f"{'a.' * 126}bcd", "web .example.com",
            "bücher.example",
        ],
    ),
    "HostPattern": (
        names.HostPattern,
        ["a.b", "*.a.b", "*.app.example.com"],
        ["*", "*.", "*.com", "a.*.b", "**.a.b", "*a.b.c", "*.*.a.b", "*.10.0.0.1"],
    ),
    "Address": (
        names.Address,
        ["127.0.0.1", "192.0.2.10", "::1", "2001:db8::1", "vps-1", "vps-1.example.com"],
        [
            "", "300.1.1.1", "1.2.3", "010.0.0.1", "a b", "a.b\n", "http://a.b", "a.b:80", "[::1]", "fe80::1%eth0",
            "fe80::1%`) || x", "a_b", "127.0.0.1/8", "169.254.169.254:80", "127.1", "2130706433", "0x7f000001",
            "0x7f.1", "a.0x", "a.1",
        ],
    ),
    "Network": (
        names.Network,
        ["10.0.0.0/8", "192.0.2.1", "::1/128", "2001:db8::/32"],
        ["", "10.0.0.0/33", "a.b", "10.0.0.0/8,::/0", "fe80::%eth0/64", "10.0.0.0/8\n"],
    ),
    "UrlPath": (
        names.UrlPath,
        ["/", "/a", "/a/", "/a/b.c", "/.well-known/x", "/...a", "/a%20b", "/@a;b=c,d:e", "/%C3%BC"],
        [
            "", "a", "//", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/%2e%2e/b", "/a%2Fb", "/%00", "/%zz", "/a b",
            "/a?b", "/a#b", "/`a", '/"a', "/{a}", "/a\n", "/a\\b", "/ü", "/(a|b)", "/a*",
        ],
    ),
    "HeaderName": (
        names.HeaderName,
        ["Host", "X-Team", "x1"],
        ["", "X Team", "X:Y", "X_Y", "X\n", "Ü", "X-Team\r\nEvil"],
    ),
    "HeaderValue": (
        names.HeaderValue,
        ["", "a", "max-age=1; b", "a\tb", "`{{ }}`"],
        ["a\nb", "a\r\nX: y", "\u0000", "ü", "\x7f"],
    ),
    "MatchValue": (names.MatchValue, ["1", "a b", "{x}", '"'], ["", "`", "a`) || Host(`b", "a\nb", "ü"]),
    "Duration": (
        names.Duration,
        ["1ms", "5s", "10m", "720h"],
        ["", "0s", "5", "s", "-1s", "1.5s", "1d", "5 s", "5s\n", "1h30m", "05s", "1" * 10 + "s"],
    ),
    "ByteSize": (
        names.ByteSize,
        ["1", "128Mi", "2Gi", "1Ti", "64Ki"],
        ["", "0", "-1", "1.5Gi", "1GB", "1G", "Mi", "1 Mi", "01", "1\n"],
    ),
    "LabelKey": (names.LabelKey, ["a", "region", "example.com/pool"], ["", "-a", "a-", "A", "x" * 64, "a b"]),
    "LabelValue": (names.LabelValue, ["", "a", "Ams_1.x"], ["-a", "a-", "x" * 64, "a b", "a\n"]),
    "EntryPointName": (names.EntryPointName, ["web", "web_2", "WEB"], ["", "-a", "a.b", "x" * 64, "a\n"]),
    "EnvName": (names.EnvName, ["A", "_a", "PATH_2"], ["", "2A", "A-B", "A=B", "A\n", "A" * 129]),
    "Thumbprint": (names.Thumbprint, ["a" * 43, "-_" * 21 + "a"], ["a" * 42, "a" * 44, "=" * 43, "a" * 43 + "\n"]),
    "AgeRecipient": (names.AgeRecipient, ["age1" + "q" * 58], ["age1" + "b" * 58, "AGE1" + "q" * 58, "age1", "q" * 62]),
}  # fmt: skip
ADAPTERS = {kind: TypeAdapter[Any](grammar) for kind, (grammar, _, _) in GRAMMAR.items()}
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
HOST = st.builds(lambda labels, top: ".".join([*labels, top]), st.lists(LABEL, min_size=1, max_size=3), st.just("test"))
PATTERN = st.one_of(HOST, HOST.map(lambda host: f"*.{host}"))


def accepts(kind: str, value: object) -> bool:
    try:
        ADAPTERS[kind].validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, (_, good, _) in GRAMMAR.items() for value in good])
def test_what_is_well_formed_is_taken_as_it_is(kind: str, value: str) -> None:
    """The value stays what the person wrote; an address without prefix becomes a network of one."""
    expected = str(ipaddress.ip_network(value)) if kind == "Network" else value
    assert ADAPTERS[kind].validate_python(value) == expected


@pytest.mark.parametrize("written", ["::ffff:10.0.0.5", "::FFFF:a00:5", "0:0:0:0:0:ffff:10.0.0.5", "10.0.0.5"])
def test_one_address_is_one_text(written: str) -> None:
    """However an IPv4 address is written, it is the same afterwards, so nobody hides it by writing it as IPv6."""
    assert ADAPTERS["Address"].validate_python(written) == "10.0.0.5"


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"]
)
def test_an_agent_is_at_the_address_of_one_machine(address: str) -> None:
    """Link-local ones (a cloud's metadata too), unspecified and multicast ones are refused with a sentence."""
    with pytest.raises(ValidationError, match=r"link-local|one machine"):
        AgentSpec(address=address)


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, (_, _, bad) in GRAMMAR.items() for value in bad])
def test_what_is_not_is_refused(kind: str, value: str) -> None:
    """Quotes, braces, line breaks, other scripts, empty parts and everything that could change a rule."""
    assert not accepts(kind, value)


@pytest.mark.parametrize(
    ("value", "good"), [(1, True), (65535, True), (0, False), (65536, False), (True, False), ("80", False)]
)
def test_a_port_is_a_number_and_not_a_word(value: object, good: bool) -> None:
    """YAML's true is no port, and neither is a quoted number."""
    try:
        TypeAdapter(names.Port).validate_python(value)
    except ValidationError:
        assert not good
    else:
        assert good


@given(st.text(max_size=30))
@pytest.mark.parametrize("kind", ["Name", "Hostname", "HostPattern", "Address", "UrlPath", "HeaderName", "EnvName"])
def test_whatever_validates_can_stand_unquoted_in_a_rule_a_path_and_a_command(kind: str, text: str) -> None:
    """No quote, back-tick, brace, white space, line break or character outside ASCII gets through."""
    if accepts(kind, text):
        assert text.isascii()
        assert not set(text) & set("`'\"\\{}()|<> \t\r\n\x00")


@given(st.text(st.sampled_from("/.%2eEfFa"), max_size=12))
def test_no_path_climbs(text: str) -> None:
    """However dots are written, a valid path has no segment that means a parent."""
    if accepts("UrlPath", text):
        decoded = text.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/")
        assert not any(segment in (".", "..") for segment in decoded.split("/"))


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("a.b", "a.b", True),
        ("*.a.b", "x.a.b", True),
        ("*.a.b", "*.a.b", True),
        ("*.a.b", "a.b", False),
        ("*.a.b", "x.y.a.b", False),
        ("*.a.b", "*.x.a.b", False),
        ("x.a.b", "*.a.b", False),
        ("*.a.b", "xa.b", False),
        ("a.b", "a.b.c", False),
    ],
)
def test_a_wildcard_covers_exactly_one_further_label(pattern: str, host: str, expected: bool) -> None:
    """As RFC 6125 6.4.3 has it for certificates."""
    assert covers(pattern, host) is expected


@given(PATTERN, PATTERN)
def test_overlap_is_mutual_and_follows_from_a_common_host(one: str, other: str) -> None:
    """Two patterns overlap where some host is covered by both."""
    assert overlaps(one, other) == overlaps(other, one)
    witnesses = {one.replace("*", "x", 1), other.replace("*", "x", 1)}
    assert overlaps(one, other) == any(covers(one, host) and covers(other, host) for host in witnesses)


@given(PATTERN, PATTERN, PATTERN)
def test_covering_is_reflexive_and_transitive(one: str, two: str, three: str) -> None:
    """What covers a pattern covers everything that the pattern covers."""
    assert covers(one, one)
    if covers(one, two) and covers(two, three):
        assert covers(one, three)


@given(HOST)
def test_every_host_is_covered_by_the_wildcard_above_it(host: str) -> None:
    """Also where the host itself has many labels."""
    assert covers(f"*.{host.partition('.')[2]}", host) == ("." in host)


@pytest.mark.parametrize(("text", "expected"), [("1ms", 0.001), ("5s", 5.0), ("2m", 120.0), ("720h", 2_592_000.0)])
def test_durations_in_seconds(text: str, expected: float) -> None:
    """Minutes are not milliseconds."""
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("1Ki", 1024), ("128Mi", 134_217_728), ("2Ti", 2_199_023_255_552)]
)
def test_sizes_in_bytes(text: str, expected: int) -> None:
    """Units are powers of two."""
    assert size_in_bytes(text) == expected
