"""What must not stand in a log line: secrets, and characters that would forge or hide lines. Pure functions of values.

Three nets, one behind the other: the type of a value (``__sensitive__``), the name it is logged under, and what it
looks like. The last is a net for accidents; nothing relies on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

REDACTED: Final = "[redacted]"
MAX_LENGTH: Final = 2_000
MAX_NAME_LENGTH: Final = 200
MAX_TRACE_LENGTH: Final = 16_000
MAX_SCANNED: Final = 64_000
"""Characters of a value that are looked at; no more of it can reach a line."""
MAX_DEPTH: Final = 5
MAX_ITEMS: Final = 100

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""What a cleaned value is made of: JSON."""

SECRET_WORDS: Final = (
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "authorization",
    "cookie",
    "private",
    "credential",
    "apikey",
    "signature",
)
HARMLESS_KEYS: Final = frozenset({"tokenid", "secretname", "secretref", "signaturegood", "signaturereason"})
"""Names (without separators) that contain such a word and hold no secret."""

SECRET_TEXTS: Final = (
    # PEM (RFC 7468), also cut off, also with its line ends written as \n
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 -]{0,60}-----|\Z)", re.DOTALL
        ),
        REDACTED,
    ),
    # JWS and JWE in compact form (RFC 7515, 7516), also cut off: they start with base64url of '{"'
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}"), REDACTED),
    (re.compile(r"\bAGE-(?:SECRET-KEY|PLUGIN)-[0-9A-Z-]+", re.IGNORECASE), REDACTED),
    (re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|gldt-)[A-Za-z0-9_-]{10,}"), REDACTED),
    # tokens of our own: for enrolment, and for people and CI
    (re.compile(r"\b(?:clt_)?[0-9a-f]{20}\.[A-Za-z0-9_-]{32,43}"), REDACTED),
    # user information of a URL (RFC 3986, 3.2.1)
    (re.compile(r"(?<=://)[^/\s@\"'<>]{1,1024}@"), f"{REDACTED}@"),
    (re.compile(r"\b(Bearer|DPoP|Basic)\s+[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (
        re.compile(
            r"(?P<name>\b[\w-]{0,40}(?:token|secret|password|passwd|passphrase|api_?key|authorization|cookie)[\w-]{0,40}"
            r"[\"']?\s{0,3}=\s{0,3}|[\"'][\w-]{0,40}(?:token|secret|password|authorization|cookie)[\w-]{0,40}[\"']\s{0,3}:\s{0,3})"
            r"(?:\"[^\"]*\"?|'[^']*'?|[^\s\"',;&}]+)",
            re.IGNORECASE,
        ),
        rf"\g<name>{REDACTED}",
    ),
)

UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
)
"""Controls (and so what starts an escape code), line separators, bidirectional and invisible marks, surrogates."""
UNSAFE_IN_TRACE: Final = re.compile(UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


@lru_cache(maxsize=1024)
def is_secret_key(key: str) -> bool:
    """Say whether what stands under this name is a secret."""
    squeezed = re.sub(r"[^a-z0-9]", "", key.lower())
    return squeezed not in HARMLESS_KEYS and any(word in squeezed for word in SECRET_WORDS)


def clean(value: object, *, depth: int = 0) -> Plain:
    """Return ``value`` as JSON that is safe to print: without secrets, escape codes, or undue length."""
    if is_sensitive(value):
        return REDACTED
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**64) < value < 2**64 else "a number of more than 64 bits"
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return _clean_mapping(value, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _clean_items(list(value), depth)
    return clean_text(_text(value))


def clean_field(key: str, value: object) -> Plain:
    """The same for a value with a name: a name that looks secret hides it."""
    if value is None or isinstance(value, bool) or not is_secret_key(key):
        return clean(value)
    return REDACTED


@lru_cache(maxsize=1024)
def clean_name(text: str) -> str:
    """The same for the name of a field. There are few, and they come with every line."""
    return clean_text(text, limit=MAX_NAME_LENGTH)


def clean_text(text: str, *, limit: int = MAX_LENGTH) -> str:
    """Redact, neutralise and shorten a text that must stay on one line."""
    return shorten(UNSAFE.sub(_visible, redact(text[:MAX_SCANNED])), limit, len(text))


def clean_trace(text: str) -> str:
    """The same for a text of many lines."""
    return shorten(UNSAFE_IN_TRACE.sub(_visible, redact(text[:MAX_SCANNED])), MAX_TRACE_LENGTH, len(text))


def redact(text: str) -> str:
    """Replace what looks like a secret."""
    for pattern, replacement in SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def shorten(text: str, limit: int, whole: int) -> str:
    """Cut after ``limit`` characters and say how long it was."""
    return text if len(text) <= limit else f"{text[:limit]}… ({max(whole, len(text))} characters)"


def is_sensitive(value: object) -> bool:
    """Whether the type of the value says that it is a secret: ``__sensitive__``, or pydantic's ``get_secret_value``."""
    return (
        hasattr(type(value), "__sensitive__")
        or hasattr(type(value), "get_secret_value")
        or "__sensitive__" in getattr(value, "__dict__", ())
    )


def _clean_mapping(value: Mapping[object, object], depth: int) -> Plain:
    if depth >= MAX_DEPTH:
        return "…"
    result: dict[str, Plain] = {}
    for key, item in list(value.items())[:MAX_ITEMS]:
        name = clean_text(key if isinstance(key, str) else _text(key), limit=200)
        secret = is_secret_key(name) and item is not None and not isinstance(item, bool)
        result[name] = REDACTED if secret else clean(item, depth=depth + 1)
    if len(value) > MAX_ITEMS:
        result["…"] = f"{len(value) - MAX_ITEMS} more"
    return result


def _clean_items(items: list[object], depth: int) -> Plain:
    if depth >= MAX_DEPTH:
        return "…"
    result = [clean(item, depth=depth + 1) for item in items[:MAX_ITEMS]]
    if len(items) > MAX_ITEMS:
        result.append(f"… {len(items) - MAX_ITEMS} more")
    return result


def _text(value: object) -> str:
    """Write anything; a log line must never fail because of what it should tell."""
    try:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except Exception as error:  # noqa: BLE001 - the value's own code failed; its type is all that can be said
        return f"<{type(value).__name__} that cannot be written: {type(error).__name__}>"


def _visible(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "backslashreplace").decode("ascii")
