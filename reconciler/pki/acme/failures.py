"""Every way in which an ACME server fails, as one sentence that names the server and repeats what it said, cleaned.

``Transient`` when the same may go well later without anybody's doing, ``Rejected`` when a person must mend something: a
record, a firewall, a name. Both are tried again, since what was mended is not announced; the type says whom to tell.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import requests
from acme import errors, messages
from josepy.errors import Error as JoseError

from reconciler.errors import Broken, Rejected, Transient
from reconciler.pki.acme.settings import VARIABLE
from reconciler.pki.acme.transport import BoundedAdapter
from schemas.text import visible

MAX_WORDS: Final = 400
"""Characters of what a server said."""
_PASSING: Final = frozenset({"accountDoesNotExist", "badNonce", "orderNotReady", "serverInternal"})
"""An account that is gone is registered anew with the next order."""
_HINTS: Final = {
    "caa": "Add the server's identity to the CAA records of the domain, or remove them.",
    "connection": "Port 80 of the name must reach the front from outside.",
    "dns": "The name, or its _acme-challenge record, must be answered by public name servers.",
    "externalAccountRequired": "Ask the operator of the server for an external account binding.",
    "rejectedIdentifier": "The server issues nothing for this name; use issuer internal for it.",
    "userActionRequired": "The terms of the server have changed; agree to them.",
}

_SENSELESS: Final = (
    *(errors.Error, JoseError),
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
)
"""What an answer without sense makes the library, or whoever reads what it has read, raise."""


class NotFound(Exception):
    """What was asked for is not there (any more). Stays inside this package."""


def host_of(url: str) -> str:
    """Return the host (and port) of a URL, for a sentence."""
    return visible(urlsplit(url).netloc or url)[:MAX_WORDS]


def said(problem: messages.Error | None) -> str:
    """Return what a problem document says (RFC 8555, 6.7): detail, type, and the same of what it is made of."""
    if problem is None:
        return "it gave no reason"
    parts = [_said_once(problem)]
    for each in problem.subproblems or ():
        name = f"{each.identifier.value}: " if each.identifier is not None else ""
        parts.append(f"{name}{_said_once(each)}")
    return _short("; ".join(parts))


def refusal(problem: messages.Error | None, sentence: str, *, status: int = 0, retry_after: float | None) -> Exception:
    """Make the error for a problem document. ``sentence`` is whole, without a full stop; what was said follows it."""
    message = f"{sentence}: {said(problem)}."
    code = _code(problem)
    if code == "rateLimited" or status == 429:
        return Transient(message, reason="AcmeRateLimited", retry_after=retry_after)
    if code in _PASSING or status >= 500:
        return Transient(message, reason="AcmeServerError", retry_after=retry_after)
    return Rejected(message, reason="AcmeRefused", hint=_HINTS.get(code, ""))


@contextmanager
def translated(host: str, doing: str, adapter: BoundedAdapter) -> Iterator[None]:
    """Let out only errors of the tree, and :class:`NotFound`. ``doing`` ends "…, when it was asked for"."""
    who = f"The ACME server {host}"
    try:
        yield
    except messages.Error as error:
        if adapter.status in (404, 410):
            raise NotFound(said(error)) from None
        raise refusal(error, f"{who} refused {doing}", status=adapter.status, retry_after=adapter.retry_after) from None
    except requests.RequestException as error:
        raise _unreachable(who, doing, error) from None
    except OSError as error:
        raise Broken(f"{who} could not be asked for {doing}: {error}.", hint="Look at its CA file.") from None
    except errors.ConflictError:
        raise Rejected(
            f"{who} refused {doing}: it says that this is in conflict with what it has.", reason="AcmeRefused"
        ) from None
    except _SENSELESS as error:
        if adapter.status == 429 or adapter.status >= 500:
            raise refusal(
                None,
                f"{who} answered with status {adapter.status}",
                status=adapter.status,
                retry_after=adapter.retry_after,
            ) from None
        if adapter.status in (404, 410):
            raise NotFound(f"status {adapter.status}") from None
        raise Transient(
            f"{who} answered something that ACME does not know (status {adapter.status}, {type(error).__name__}), "
            f"when it was asked for {doing}.",
            reason="AcmeAnswerMalformed",
            hint="Check that the URL is the one of an ACME directory.",
        ) from None


def _unreachable(who: str, doing: str, error: requests.RequestException) -> Exception:
    certificate = next((each for each in _causes(error) if isinstance(each, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return Rejected(
            f"{who} is not trusted: {visible(certificate.verify_message)}.",
            reason="AcmeUntrusted",
            hint="Name the file with the CA that its certificate comes from as ca-file, under the [[directory]] of its "
            f"URL, in the file that {VARIABLE} names; and check that the URL is right.",
        )
    if isinstance(error, requests.Timeout):
        return Transient(f"{who} did not answer in time, when it was asked for {doing}.", reason="AcmeUnreachable")
    if isinstance(error, requests.TooManyRedirects):
        return Transient(
            f"{who} answered with a redirect, which is not followed, when it was asked for {doing}.",
            reason="AcmeAnswerMalformed",
        )
    if isinstance(error, requests.exceptions.InvalidSchema):
        return Transient(f"{who} named a URL that is not https, for {doing}.", reason="AcmeAnswerMalformed")
    why = next((each.strerror for each in _causes(error) if isinstance(each, OSError) and each.strerror), "")
    return Transient(
        f"{who} could not be reached: {_short(why or str(error))}, when it was asked for {doing}.",
        reason="AcmeUnreachable",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what is behind it; ``urllib3`` and ``requests`` put that into arguments and attributes."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        behind = (*each.args, getattr(each, "reason", None), each.__cause__, each.__context__)
        left += [one for one in behind if isinstance(one, BaseException)]


def _said_once(problem: messages.Error) -> str:
    words = problem.detail or problem.title
    code = _code(problem)
    if not words:
        return code or "it gave no reason"
    return f'"{_short(str(words)).rstrip(".")}"' + (f" ({code})" if code else "")


def _code(problem: messages.Error | None) -> str:
    """Return the end of the problem's type, "" for none."""
    if problem is None or problem.typ == "about:blank":
        return ""
    return _short(str(problem.typ).rpartition(":")[2])


def _short(words: str) -> str:
    clean = visible(" ".join(words.split()))
    return clean if len(clean) <= MAX_WORDS else f"{clean[: MAX_WORDS - 1]}…"
