from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from acme import errors, messages

from reconciler.errors import Broken, CloudLunacyError, Rejected, Transient
from reconciler.pki.acme.failures import MAX_WORDS, NotFound, refusal, said, translated
from reconciler.pki.acme.transport import BoundedAdapter

PREFIX = "urn:ietf:params:acme:error:"


def problem(code: str, detail: object = "the words", **more: object) -> messages.Error:
    made: messages.Error = messages.Error.from_json({"type": PREFIX + code, "detail": detail, **more})
    return made


@contextmanager
def asked(status: int = 0, retry_after: float | None = None) -> Iterator[None]:
    adapter = BoundedAdapter(None, connect_seconds=1, seconds=1, max_bytes=1)
    adapter.status, adapter.retry_after = status, retry_after
    with translated("acme.test", "an order", adapter):
        yield


@pytest.mark.parametrize("code", ["serverInternal", "badNonce", "orderNotReady", "accountDoesNotExist"])
def test_what_passes_by_itself_is_transient(code: str) -> None:
    """The server's own trouble concerns nobody who could mend it."""
    with pytest.raises(Transient, match=r'acme\.test refused an order: "the words"'), asked(400):
        raise problem(code)


@pytest.mark.parametrize("code", ["caa", "rejectedIdentifier", "unauthorized", "badCSR", "new"])
def test_what_a_person_must_mend_is_rejected(code: str) -> None:
    """Everything else, types that nobody knows yet too."""
    with pytest.raises(Rejected, match=rf"\({code}\)"), asked(403):
        raise problem(code)


def test_a_limit_says_when() -> None:
    """rateLimited carries the seconds of Retry-After."""
    with pytest.raises(Transient) as caught, asked(429, 99):
        raise problem("rateLimited")
    assert (caught.value.reason, caught.value.retry_after) == ("AcmeRateLimited", 99)


@pytest.mark.parametrize(("status", "reason"), [(429, "AcmeRateLimited"), (503, "AcmeServerError")])
def test_a_status_counts_where_no_type_says_more(status: int, reason: str) -> None:
    """A proxy in front of the server answers in words of its own, or in none."""
    for error in (messages.Error.from_json({"detail": "later"}), errors.ClientError("<html>")):
        with pytest.raises(Transient) as caught, asked(status, 5):
            raise error
        assert (caught.value.reason, caught.value.retry_after) == (reason, 5)


def test_words_of_a_server_are_made_visible_and_short() -> None:
    """Control characters, line ends and floods of a problem document reach nobody's terminal."""
    words = said(problem("unauthorized", "a\x1b[31m\nb\u202e" + "c" * 10_000))
    assert words.isprintable()
    assert words.startswith('"a\\x1b[31m b\\u202eccc')
    assert len(words) <= MAX_WORDS + 50


def test_subproblems_are_told_with_their_names() -> None:
    """A compound refusal says which name was refused why."""
    name = {"type": "dns", "value": "a.test"}
    parts = [{"type": f"{PREFIX}caa", "detail": "forbidden", "identifier": name}, {"type": f"{PREFIX}dns"}]
    assert said(problem("compound", "two", subproblems=parts)) == '"two" (compound); a.test: "forbidden" (caa); dns'


def test_a_refusal_without_words_is_told() -> None:
    """A server that says nothing is quoted with nothing."""
    assert said(None) == "it gave no reason"
    assert str(refusal(None, "It failed", retry_after=None)) == "It failed: it gave no reason."


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectionError("x\x1b"), Transient),
        (requests.ReadTimeout(), Transient),
        (requests.exceptions.InvalidSchema("ftp"), Transient),
        (requests.exceptions.InvalidURL("x"), Transient),
        (requests.TooManyRedirects(), Transient),
        (requests.exceptions.SSLError("record layer"), Transient),
        (errors.ClientError("x"), Transient),
        (errors.ConflictError("https://x"), Rejected),
        (KeyError("newOrder"), Transient),
        (TypeError("x"), Transient),
        (RecursionError(), Transient),
        (OverflowError("date value out of range"), Transient),
        (OSError("Could not find a suitable TLS CA certificate bundle"), Broken),
    ],
)
def test_only_errors_of_the_tree_leave(error: Exception, kind: type[CloudLunacyError]) -> None:
    """Whatever the libraries raise becomes a printable sentence that names the server."""
    with pytest.raises(kind) as caught, asked():
        raise error
    assert "acme.test" in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_told_apart(status: int) -> None:
    """404 and 410 leave as NotFound, with a problem document and without."""
    for error in (problem("malformed"), errors.ClientError("x")):
        with pytest.raises(NotFound), asked(status):
            raise error
