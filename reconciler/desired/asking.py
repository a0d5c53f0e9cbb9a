"""From a URL that a person writes to a question that the routers of a state can answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, urlsplit

from schemas.explain_api import LONGEST_URL

Scheme = Literal["http", "https", "mongodb", "tls"]
SCHEMES: Final[Mapping[str, Scheme]] = {
    "http": "http",
    "https": "https",
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
    "tls": "tls",
}
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HOST: Final = re.compile(r"^(?=.{1,254}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?$")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED: Final = frozenset(b":/?#[]@!$&'()*+,;=%")
_MORE_HOSTS: Final = re.compile(r"^(mongodb://[^/?,]*),[^/?]*", re.IGNORECASE)
"""A connection string may list several; the first one counts."""
_SLASHES: Final = re.compile(r"/{2,}")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


class NoQuestion(ValueError):
    """The text is no URL that somebody could ask a front for. The message is for people."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, or one connection."""

    scheme: Scheme
    host: str
    """In lower case, without port."""
    port: int | None = None
    path: str = "/"
    """As it goes over the wire, percent-encoded, without dot segments."""
    query: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    tls: bool = True

    @property
    def url(self) -> str:
        """The URL as it was understood, without user and password."""
        place = self.host if self.port is None else f"{self.host}:{self.port}"
        if self.scheme in ("http", "https"):
            return f"{self.scheme}://{place}{self.path}{'?' if self.query else ''}{self.query}"
        return f"{self.scheme}://{place}"


def question(text: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Question:
    """Read a URL. Without a scheme it is meant to be https.

    Raises:
        NoQuestion: saying what is wrong with it.
    """
    text = text.strip()
    if not text:
        raise NoQuestion("Write a URL, such as https://web.app.example.com/.")
    if len(text) > LONGEST_URL:
        raise NoQuestion(f"The URL is longer than {LONGEST_URL} characters.")
    try:
        parts = urlsplit(_MORE_HOSTS.sub(r"\1", text if "://" in text else f"https://{text}"))
        named, port = parts.hostname or "", parts.port
    except ValueError:
        raise NoQuestion("This is no URL. Write it like https://web.app.example.com/.") from None
    scheme = SCHEMES.get(parts.scheme.lower())
    if scheme is None:
        raise NoQuestion(f"The scheme is one of {', '.join(SCHEMES)}.")
    host = _ascii(named)
    if not _HOST.match(host):
        raise NoQuestion("The URL has no host name that a route could have.")
    if method.upper() not in METHODS:
        raise NoQuestion(f"The method is one of {', '.join(METHODS)}.")
    path = ""
    if scheme in ("http", "https"):
        path = cleaned(quote(parts.path or "/", safe="/:?[]@!$&'()*+,;=%~"))
        if "%" in _ESCAPE.sub("", path):
            raise NoQuestion("A percent sign in the path starts two hexadecimal digits.")
    options = {name.lower(): value.lower() for name, value in parse_qsl(parts.query)}
    tls = scheme != "mongodb" or parts.scheme.lower() == "mongodb+srv"
    return Question(
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        query=quote(parts.query, safe="/:?[]@!$&'()*+,;=%~"),
        method=method.upper(),
        headers={name.lower(): value for name, value in (headers or {}).items()},
        tls=tls if scheme != "mongodb" else (options.get("tls", options.get("ssl", str(tls).lower())) == "true"),
    )


def _ascii(host: str) -> str:
    if host.isascii():
        return host.lower()
    try:
        return host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return ""


def cleaned(path: str) -> str:
    """Return a path as a front passes it on: unreserved characters decoded, dot segments and double slashes gone.

    As Traefik 3.7 does it, tried on it: a double slash is one only after dot segments are gone.
    """
    found: list[str] = []
    for part in _ESCAPE.sub(_unreserved, path).split("/")[1:]:
        if part == "..":
            del found[-1:]  # of a double slash the empty name between
        elif part != ".":
            found.append(part)
    return _SLASHES.sub("/", f"/{'/'.join(found)}")


def _unreserved(match: re.Match[str]) -> str:
    code = int(match[0][1:], 16)
    return chr(code) if code in _UNRESERVED else match[0].upper()


def routing_path(path: str) -> str:
    """Return a path as Traefik compares it with rules: decoded, but for RFC 3986's reserved characters."""
    return _ESCAPES.sub(_decoded, path)


def _decoded(match: re.Match[str]) -> str:
    found = bytearray()
    for code in bytes.fromhex(match[0].replace("%", "")):
        found += f"%{code:02X}".encode() if code in _RESERVED else bytes([code])
    return found.decode(errors="replace")
