r"""Traefik's rules and priorities, built from checked fields.

A request can match several routers; Traefik takes the one with the highest priority. We compute it, so that no team
gains by a longer rule: ``1000 + ((host · 2 + path kind) · 2048 + path length) · 64 + conditions``, where host is 1 for
an exact name and 0 for a wildcard, path kind 1 for an exact path and 0 for a prefix, path length is in characters (at
most 1024, 0 without a path), and conditions is the number of headers, plus one for methods (at most 17). So an exact
host beats a wildcard, then an exact path a prefix, then the longer prefix the shorter, then more conditions fewer: the
order of the Kubernetes Gateway API. The catch-alls have priority 1; the largest value is far below Traefik's limit.

A router's rule is one conjunction with one priority. Hosts or paths of different rank in one route make several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from reconciler.desired.compile_problem import CompileProblem
from schemas.route import HeaderMatch, PathMatch

FLOOR: Final = 1000
CATCH_ALL_PRIORITY: Final = 1
SNI_EXACT: Final = 3000
SNI_WILDCARD: Final = 2000
_LABEL: Final = "[a-z0-9_-]+"
_SAFE: Final = re.compile(r"^[\x20-\x5f\x61-\x7e]+$")
_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_RESERVED: Final = frozenset(b":/?#[]@!$&'()*+,;=%")


class Match(NamedTuple):
    """A rule and the priority that its kind of rule has."""

    rule: str
    priority: int


class _Paths(NamedTuple):
    exact: bool
    length: int
    rules: list[str]


def literal(value: str, field: tuple[str | int, ...]) -> str:
    """Write ``value`` as a string of the rule language, which is a raw Go string: it can hold no back-tick.

    The schema's grammar lets nothing else pass; this is the last look before a string becomes part of a rule.

    Raises:
        CompileProblem: code ``unsafe-rule`` when it is not visible ASCII or holds a back-tick.
    """
    if not _SAFE.match(value):
        raise CompileProblem(
            "unsafe-rule", "this value cannot be matched: write visible ASCII without back-ticks", field
        )
    return f"`{value}`"


def http_matches(
    hosts: Sequence[str],
    paths: Sequence[PathMatch],
    headers: Sequence[HeaderMatch] = (),
    methods: Sequence[str] = (),
) -> list[Match]:
    """Rules for requests to any of ``hosts`` and any of ``paths`` that carry all headers and one of the methods.

    Highest priority first. Raises CompileProblem with a field under ``spec``.
    """
    conditions = [
        f"Header(`{header.name}`, {literal(header.value, ('spec', 'headers', index, 'value'))})"
        for index, header in enumerate(headers)
    ]
    if methods:
        conditions.append(any_of([f"Method(`{method}`)" for method in methods]))
    tail = "".join([f" && {condition}" for condition in conditions])
    matches = []
    for exact_host, host_rules in _by_host(hosts):
        host_rule = any_of(host_rules)
        for group in _by_path(paths):
            path_rule = f" && {any_of(group.rules)}" if group.rules else ""
            rank = ((exact_host * 2 + group.exact) * 2048 + group.length) * 64 + len(conditions)
            matches.append(Match(f"{host_rule}{path_rule}{tail}", FLOOR + rank))
    return matches


def sni_matches(hosts: Sequence[str]) -> list[Match]:
    """Rules for TLS connections to any of ``hosts``, exact names first."""
    matches = []
    for exact, rules in _by_host(hosts, exact_name="HostSNI", pattern_name="HostSNIRegexp"):
        matches.append(Match(" || ".join(rules), SNI_EXACT if exact else SNI_WILDCARD))
    return matches


def any_of(rules: Sequence[str]) -> str:
    """Join alternatives; in parentheses where there are several, because ``&&`` binds closer."""
    return rules[0] if len(rules) == 1 else f"({' || '.join(rules)})"


def _by_host(
    hosts: Sequence[str], *, exact_name: str = "Host", pattern_name: str = "HostRegexp"
) -> Iterable[tuple[bool, list[str]]]:
    exact: list[str] = []
    wildcard: list[str] = []
    for index, host in enumerate(hosts):
        written = literal(host, ("spec", "hostnames", index))
        if host.startswith("*."):
            # anchored at both ends, one label: *.parent covers neither parent nor x.y.parent (RFC 6125, 6.4.3)
            wildcard.append(f"{pattern_name}(`^{_LABEL}\\.{host[2:].replace('.', chr(92) + '.')}$`)")
        else:
            exact.append(f"{exact_name}({written})")
    return [(kind, rules) for kind, rules in ((True, exact), (False, wildcard)) if rules]


def _by_path(paths: Sequence[PathMatch]) -> Iterable[_Paths]:
    groups: dict[tuple[bool, int], _Paths] = {}
    for index, path in enumerate(paths):
        if path.exact is not None:
            exact, rule, length = True, f"Path({_path(path.exact, index, 'exact')})", len(path.exact)
        else:
            exact, (rule, length) = False, _prefix(path.prefix or "/", index)
        group = groups.setdefault((exact, length), _Paths(exact, length, []))
        if rule and rule not in group.rules:
            group.rules.append(rule)
    if not groups:
        return (_Paths(False, 0, []),)
    return sorted(groups.values(), key=lambda group: (not group.exact, -group.length))


def _prefix(prefix: str, index: int) -> tuple[str, int]:
    """The path and all below it, by segments: Traefik's PathPrefix(`/a`) alone would match ``/ab``."""
    if prefix == "/":
        return "", 0
    written = _path(prefix, index, "prefix")
    if prefix.endswith("/"):
        return f"PathPrefix({written})", len(prefix)
    return f"(Path({written}) || PathPrefix({written[:-1]}/`))", len(prefix)


def _path(path: str, index: int, key: str) -> str:
    """Write a path as Traefik compares it: percent-encoding undone, but for RFC 3986's reserved characters."""
    field = ("spec", "paths", index, key)
    if "%" not in path:
        return literal(path, field)
    if "%" in _PERCENT.sub("", path):
        raise CompileProblem("invalid-path", "a percent sign starts two hexadecimal digits", field)
    return literal(_PERCENT.sub(_decode, path), field)


def _decode(match: re.Match[str]) -> str:
    codes = bytes.fromhex(match[0].replace("%", ""))
    return "".join(f"%{code:02X}" if code in _RESERVED else chr(code) for code in codes)
