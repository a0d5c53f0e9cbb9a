from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from reconciler.observability.redaction import (
    MAX_LENGTH,
    MAX_SCANNED,
    REDACTED,
    clean,
    clean_field,
    clean_text,
    clean_trace,
)

CANARY = "Zm9vYmFyY2FuYXJ5"
JWT = f"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ2cHMtMSJ9.{CANARY}"
PEM = f"-----BEGIN EC PRIVATE KEY-----\nMHcCAQ{CANARY}\n-----END EC PRIVATE KEY-----"


class Sealed:
    __sensitive__ = True

    def __str__(self) -> str:
        return CANARY


class SealedText(str):
    __slots__ = ()
    __sensitive__ = True


@dataclass
class Holder:
    text: str


SECRET_TEXTS = [
    JWT,
    f"token was {JWT}, refused",
    JWT.rsplit(".", 1)[0] + f".{CANARY}.{CANARY}.{CANARY}",
    f"eyJhbGciOiJFUzI1NiJ9{CANARY}",
    PEM,
    PEM.replace("EC PRIVATE", "PRIVATE"),
    PEM.replace("\n", "\\n"),
    PEM.split("\n-----END", maxsplit=1)[0],
    PEM.replace("EC PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}",
    f"AGE-SECRET-KEY-1{CANARY.upper()}",
    f"age-secret-key-1{CANARY.lower()}",
    f"ghp_{CANARY}",
    f"github_pat_{CANARY}",
    f"glpat-{CANARY}",
    f"fatal: could not read from https://bot:{CANARY}@git.example.test/fleet.git",
    f"https://{CANARY}@git.example.test/fleet.git",
    f"mongodb://user:{CANARY}@vps-1.mongodb.cloudlunacy.test:27017/db?tls=true",
    f"Authorization: Bearer {CANARY}",
    f"authorization: basic {CANARY}=",
    f"DPoP {CANARY}",
    f"GET /api/v1/agents?access_token={CANARY}&limit=1",
    f"password={CANARY}",
    f'PASSWORD="{CANARY} {CANARY}"',
    f"--token={CANARY}",
    f'{{"client_secret": "{CANARY}"}}',
    f"{{'password': '{CANARY} {CANARY}'}}",
    f"Set-Cookie=session-{CANARY}",
]


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_a_text_that_looks_like_a_secret_is_redacted(text: str) -> None:
    """Nothing of the secret is left, wherever in a value or traceback it stands."""
    for cleaned in (clean_text(text), clean_trace(f"Traceback\n  {text}\n"), json.dumps(clean({"a": [f"x {text}"]}))):
        assert CANARY.lower() not in cleaned.lower()
        assert REDACTED in cleaned


@pytest.mark.parametrize(
    "text",
    [
        'routes/shop/web.yaml:7:5 unknown-agent: backend names agent "vsp-1", which does not exist.',
        "secret: shop/db has no key password",
        "the token is spent",
        "https://git.example.test/fleet.git?ref=main",
        "Basic authentication is off",
        "ann@example.test pushed a1a1a1a",
        "-----BEGIN CERTIFICATE-----",
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
        "Grüße, 世界 😀",
    ],
)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    """What holds no secret and no control character is not touched."""
    assert clean_text(text) == text


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "enrolment_token",
        "API-Key",
        "apiKey",
        "Authorization",
        "set-cookie",
        "privateKey",
        "db_password",
        "X-Hub-Signature-256",
        "credentials",
        "clientSecret",
    ],
)
@pytest.mark.parametrize("value", [CANARY, [CANARY], {"a": CANARY}, 1234, b"bytes", Sealed()])
def test_a_secret_name_hides_its_value(key: str, value: object) -> None:
    """What is logged under a name that looks secret is never shown, at any depth."""
    assert clean_field(key, value) == REDACTED
    assert clean({"outer": {key: value}}) == {"outer": {key: REDACTED}}


@pytest.mark.parametrize("key", ["token_id", "agent", "revision", "secret_name"])
def test_a_harmless_name_shows_its_value(key: str) -> None:
    """Names that only refer to a secret are shown."""
    assert clean_field(key, "vps-1") == "vps-1"


@pytest.mark.parametrize("value", [Sealed(), SealedText(CANARY), SecretStr(CANARY), [Sealed()], {"a": (Sealed(),)}])
def test_a_sensitive_type_is_never_written(value: object) -> None:
    """A value whose type says that it is a secret is redacted under any name, also when it is a text."""
    assert CANARY not in json.dumps(clean_field("value", value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nlevel=error forged", "a\\nlevel=error forged"),
        ("\r\n\t\x00", "\\r\\n\\t\\x00"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\ufeff\u200b", "\\ufeff\\u200b"),
        ("\udcff", "\\udcff"),
    ],
)
def test_characters_that_forge_or_hide_lines_are_made_visible(text: str, expected: str) -> None:
    """Controls, escape codes, line separators and bidirectional marks become their escapes."""
    assert clean_text(text) == expected
    assert clean({text: text}) == {expected: expected}


def test_a_trace_keeps_its_lines_and_nothing_else() -> None:
    """Line feeds stay in a traceback; carriage returns and escape codes do not."""
    assert clean_trace("a\n  b\r\x1b[2J") == "a\n  b\\r\\x1b[2J"


def test_long_values_are_shortened() -> None:
    """A long text says how long it was; a deep or wide structure ends."""
    assert clean_text("x" * 10_000) == "x" * MAX_LENGTH + "… (10000 characters)"
    wide: Any = clean(list(range(1000)))
    assert wide[-1] == "… 900 more"
    loop: list[object] = []
    loop.append(loop)
    assert len(json.dumps(clean(loop))) < 100
    assert clean(10**5000) == "a number of more than 64 bits"


def test_a_secret_that_crosses_the_scanned_part_is_cut_off() -> None:
    """No part of a text beyond what was scanned is shown."""
    assert CANARY not in clean_text("-" * (MAX_SCANNED - 10) + JWT)


def test_a_value_that_cannot_be_written_says_so() -> None:
    """A failing ``__str__`` costs the value, not the line."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(CANARY)

    assert clean(Broken()) == "<Broken that cannot be written: RuntimeError>"
    assert clean(Holder(f"https://bot:{CANARY}@git.test")) == f"Holder(text='https://{REDACTED}@git.test')"


@pytest.mark.parametrize("text", ["token" * 12_000, "a@" * 30_000, "://" * 20_000, "-----BEGIN " * 6_000, '"' * 60_000])
def test_hostile_texts_cost_no_undue_time(text: str) -> None:
    """Texts made to slow down the search are cleaned within a second of processor time."""
    before = time.process_time()
    clean_text(text)
    assert time.process_time() - before < 1.0
