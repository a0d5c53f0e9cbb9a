"""The rules that :mod:`reconciler.desired.matching` writes, read back and held against a request, as Traefik does it.

Only the matchers that are written there are known: Host, HostRegexp, Path, PathPrefix, Header, Method, HostSNI and
HostSNIRegexp, joined by ``&&`` (which binds closer) and ``||``, in parentheses or not.
Source: https://doc.traefik.io/traefik/reference/routing-configuration/http/routing/rules-and-priority/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(r"\s*(&&|\|\||[A-Za-z]+\((?:`[^`]*`(?:,\s*)?)*\)|\(|\))")
_ARGUMENT: Final = re.compile(r"`([^`]*)`")


class RuleUnread(ValueError):
    """A rule that is none of ours."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request or a connection a rule can look at."""

    host: str = ""
    """In lower case, without port."""
    path: str = "/"
    """As Traefik compares it, see :func:`reconciler.desired.asking.routing_path`."""
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    """Names in lower case."""
    server_name: str = ""


class _Call(NamedTuple):
    name: str
    arguments: tuple[str, ...]


class _Any(NamedTuple):
    parts: tuple[_Node, ...]


class _All(NamedTuple):
    parts: tuple[_Node, ...]


_Node = _Call | _Any | _All


def fits(rule: str, asked: Asked) -> bool:
    """Say whether a rule takes a request.

    Raises:
        RuleUnread: when it is not written as ours are.
    """
    return _holds(_read(rule), asked)


def misses(rule: str, asked: Asked) -> tuple[str, ...]:
    """Name the matchers that every request must pass and this one does not, such as ``Path``."""
    tree = _read(rule)
    parts = tree.parts if isinstance(tree, _All) else (tree,)
    return tuple(dict.fromkeys(name for part in parts if not _holds(part, asked) for name in _names(part)))


def _names(node: _Node) -> tuple[str, ...]:
    if isinstance(node, _Call):
        return (node.name,)
    return tuple(name for part in node.parts for name in _names(part))


@lru_cache(maxsize=4096)
def _read(rule: str) -> _Node:
    tokens: list[str] = []
    place = 0
    while place < len(rule):
        found = _TOKEN.match(rule, place)
        if found is None:
            raise RuleUnread("this is no rule of ours")
        tokens.append(found[1])
        place = found.end()
    tokens.reverse()
    tree = _any(tokens)
    if tokens:
        raise RuleUnread("this is no rule of ours")
    return tree


def _any(tokens: list[str]) -> _Node:
    parts = [_all(tokens)]
    while tokens and tokens[-1] == "||":
        tokens.pop()
        parts.append(_all(tokens))
    return parts[0] if len(parts) == 1 else _Any(tuple(parts))


def _all(tokens: list[str]) -> _Node:
    parts = [_one(tokens)]
    while tokens and tokens[-1] == "&&":
        tokens.pop()
        parts.append(_one(tokens))
    return parts[0] if len(parts) == 1 else _All(tuple(parts))


def _one(tokens: list[str]) -> _Node:
    word = tokens.pop() if tokens else ""
    if word == "(":
        inner = _any(tokens)
        if not tokens or tokens.pop() != ")":
            raise RuleUnread("this is no rule of ours")
        return inner
    name, bracket, _ = word.partition("(")
    if not bracket or name not in _MATCHERS:
        raise RuleUnread("this is no rule of ours")
    return _Call(name, tuple(_ARGUMENT.findall(word)))


def _holds(node: _Node, asked: Asked) -> bool:
    if isinstance(node, _Any):
        return any(_holds(part, asked) for part in node.parts)
    if isinstance(node, _All):
        return all(_holds(part, asked) for part in node.parts)
    return _MATCHERS[node.name](node.arguments, asked)


def _host(arguments: tuple[str, ...], asked: Asked) -> bool:
    return asked.host.removesuffix(".") == arguments[0]  # Traefik forgives the root's dot


def _host_regexp(arguments: tuple[str, ...], asked: Asked) -> bool:
    return re.search(arguments[0], asked.host) is not None


def _path(arguments: tuple[str, ...], asked: Asked) -> bool:
    return asked.path == arguments[0]


def _path_prefix(arguments: tuple[str, ...], asked: Asked) -> bool:
    return asked.path.startswith(arguments[0])


def _header(arguments: tuple[str, ...], asked: Asked) -> bool:
    return (asked.headers or {}).get(arguments[0].lower()) == arguments[1]


def _method(arguments: tuple[str, ...], asked: Asked) -> bool:
    return asked.method == arguments[0]


def _sni(arguments: tuple[str, ...], asked: Asked) -> bool:
    return arguments[0] in ("*", asked.server_name)


def _sni_regexp(arguments: tuple[str, ...], asked: Asked) -> bool:
    return re.search(arguments[0], asked.server_name) is not None


_MATCHERS: Final = {
    "Host": _host,
    "HostRegexp": _host_regexp,
    "Path": _path,
    "PathPrefix": _path_prefix,
    "Header": _header,
    "Method": _method,
    "HostSNI": _sni,
    "HostSNIRegexp": _sni_regexp,
}
