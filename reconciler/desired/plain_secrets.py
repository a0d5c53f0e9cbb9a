"""Secrets that stand in clear in a file: a warning, because a name or a form can only make one suspect. Pure.

Suspicious are environment variables, headers and arguments by their name (``DB_PASSWORD``, ``Authorization``,
``--token``) and every value by its form: private keys, keys and tokens of well-known services, URLs with a password.
What is found is named by its place; the value itself is in no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from reconciler.desired.finding import FieldPath, Finding
from schemas.deployment import DeploymentSpec
from schemas.objects import AnyObject, ObjectKey
from schemas.route import RouteSpec

MAX_FINDINGS: Final = 20
"""Of one object."""

_SECRET_WORD: Final = re.compile(
    r"(?:PASSWORDS?|PASSWD|PASSPHRASE|SECRETS?|TOKEN|CREDENTIALS?|APIKEY|AUTHORIZATION)[0-9]*(?=_|$)"
    r"|(?:^|_)(?:PWD|PASS|PSK|KEY|COOKIE)[0-9]*$"
)
_HARMLESS_END: Final = re.compile(
    r"_(?:FILE|PATH|DIR|URL|URI|HOST|PORT|NAME|USER|USERNAME|ID|TTL|AGE|LENGTH|SIZE|EXPIRY|EXPIRES|EXPIRATION|TIMEOUT"
    r"|INTERVAL|SECONDS|MINUTES|HOURS|DAYS|ENABLED|DISABLED|REQUIRED|POLICY|HEADER|ISSUER|AUDIENCE|ALGORITHM|ALG|TYPE"
    r"|COUNT|LIMIT|BUDGET|MIN|MAX|PREFIX|ENDPOINT|PROVIDER|FIELD|REALM)$"
    r"|(?:^|_)(?:PUBLIC|PRIMARY|PARTITION|SORT|CACHE|FOREIGN|ROUTING|HOST|IDEMPOTENCY|SURROGATE)_KEY$"
    r"|^(?:PWD|OLDPWD|KEY|PASS)$"
)
_NO_SECRET: Final = re.compile(
    r"|true|false|yes|no|on|off|none|null|required|optional"
    r"|\$\w+|\$\{[^}]*\}|\$\([^)]*\)"  # filled in by whoever starts the program
    r"|\.{0,2}/(?:etc|run|var|opt|srv|home|data|app|usr|tmp|mnt|secrets|config)/\S*|\.{0,2}/\S*\.[a-z]{2,5}",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:ms|[smhd])?")
_FLAG: Final = re.compile(r"--?([A-Za-z][A-Za-z0-9_.-]*)(?:=(.*))?", re.DOTALL)
# Repetitions are bounded, so that no value costs more than its length; each choice starts with a letter of its own and
# none with an assertion, because only then the engine skips what can start none.
_FORMS: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----|AGE-SECRET-KEY-1[0-9A-Z]{20}"
    r"|AKIA[0-9A-Z]{16}\b|ASIA[0-9A-Z]{16}\b"
    r"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22}|glpat-[A-Za-z0-9_-]{20}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{15}|sk_live_[A-Za-z0-9]{16}|rk_live_[A-Za-z0-9]{16}|AIza[A-Za-z0-9_-]{35}"
    r"|eyJ[A-Za-z0-9_-]{8,200}\.eyJ[A-Za-z0-9_-]{8}"
)
_SHORTEST: Final = 20
"""Characters of the shortest text that :data:`_FORMS` finds."""
_REASONS: Final = {"----": "a private key", "AGE-": "a private key"} | dict.fromkeys(
    ["AKIA", "ASIA"], "an access key of AWS"
)
_URL: Final = re.compile(r"://[^\s/:@?#]{0,200}:(?![$<{*])[^\s/@?#]{1,200}@")

Place = tuple[FieldPath, str]
"""Where something suspicious stands, and what makes it so."""


def plain_secrets(key: ObjectKey, found: AnyObject) -> Sequence[Finding]:
    """Return a warning for each value of a deployment or a route that looks like a secret."""
    spec = found.spec
    if isinstance(spec, RouteSpec):
        places = list(_of_route(spec)) if spec.headers or spec.middlewares or spec.health_check else []
    elif isinstance(spec, DeploymentSpec):
        places = list(_of_deployment(spec))
    else:
        return ()
    return [_finding(key, field, reason) for field, reason in places[:MAX_FINDINGS]] if places else ()


def _finding(key: ObjectKey, field: FieldPath, reason: str) -> Finding:
    text = f"{_dotted(field)} looks like a secret ({reason}) and stands here in clear."
    advice = "Keep it in the service behind the route"
    if key.kind == "Deployment":
        advice = f"Seal it (cloudlunacy secret seal {key.team}/{key.name} KEY), name it under spec.secrets instead"
    hint = f"{advice}, and change the value: git keeps what it was."
    return Finding(key.path, "plain-secret", text, hint, field, severity="warning")


def _of_deployment(spec: DeploymentSpec) -> Iterator[Place]:
    for name, value in spec.env.items():
        if reason := _suspicion(name, value):
            yield ("spec", "env", name), reason
    if spec.command:
        yield from _of_arguments(spec.command, ("spec", "command"))
    if spec.health_check is not None and spec.health_check.command is not None:
        yield from _of_arguments(spec.health_check.command.command, ("spec", "healthCheck", "command", "command"))


def _of_arguments(arguments: tuple[str, ...], field: FieldPath) -> Iterator[Place]:
    name = ""
    for index, argument in enumerate(arguments):
        flag = _FLAG.fullmatch(argument)
        value = argument if flag is None else flag[2] or ""
        if reason := _suspicion(name if flag is None else flag[1], value):
            yield (*field, index), reason
        name = flag[1] if flag is not None and flag[2] is None else ""


def _of_route(spec: RouteSpec) -> Iterator[Place]:
    for index, match in enumerate(spec.headers):
        if reason := _suspicion(match.name, match.value):
            yield ("spec", "headers", index, "value"), reason
    if spec.health_check is not None and spec.health_check.headers:
        yield from _of_headers(spec.health_check.headers, ("spec", "healthCheck", "headers"))
    for index, middleware in enumerate(spec.middlewares):
        if middleware.headers is not None:
            field: FieldPath = ("spec", "middlewares", index, "headers")
            yield from _of_headers(middleware.headers.request, (*field, "request"))
            # every client is told what a response says: only what has the form of a secret is one there
            yield from _of_headers(middleware.headers.response, (*field, "response"), by_name=False)


def _of_headers(headers: Mapping[str, str], field: FieldPath, *, by_name: bool = True) -> Iterator[Place]:
    for name, value in headers.items():
        if reason := _suspicion(name if by_name else "", value):
            yield (*field, name), reason


def _suspicion(name: str, value: str) -> str:
    """Say why a value looks like a secret; an empty text where it does not."""
    if len(value) >= _SHORTEST and (form := _FORMS.search(value)) is not None:
        return _REASONS.get(form[0][:4], "a token")
    if "://" in value and "@" in value and _URL.search(value) is not None:
        return "a URL with a password"
    certainty = _promises_secret(name)
    if not certainty or _NO_SECRET.fullmatch(value) or (certainty == 1 and _NUMBER.fullmatch(value)):
        return ""
    return "by its name"


@lru_cache(maxsize=4096)
def _promises_secret(name: str) -> int:
    """Judge a name: 0 says nothing, 1 has a word for secrets in it, 2 ends in one."""
    words = name.upper().replace("-", "_").replace(".", "_")
    found = [match.end() for match in _SECRET_WORD.finditer(words)]
    if not found or _HARMLESS_END.search(words):
        return 0
    return 2 if found[-1] == len(words) else 1


def _dotted(field: FieldPath) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in field)[1:]
