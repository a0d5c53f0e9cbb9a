"""Logging in with an OpenID Connect provider: the authorization code flow with PKCE, state and nonce.

1. discover the provider (OpenID Connect Discovery 1.0); it must call itself as the settings do;
2. lead the browser there, with a challenge (RFC 7636), a state and a nonce that belong to it alone;
3. what comes back must be of this attempt (``login``), and of this provider where it says so (RFC 9207);
4. change the code for tokens, with the verifier and the client's secret;
5. verify the ID token (``id_tokens``);
6. where it names no groups, ask for the rest about the same person (OpenID Connect Core, 5.3).

Authlib writes requests and judges claims; what goes over the network is ours, with bounds on size and time.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx
from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

from reconciler.access import id_tokens
from reconciler.access.id_tokens import Expected, UnknownKeyError, groups_of, person_of
from reconciler.access.login import Attempt
from reconciler.access.oidc_settings import HINT, OidcSettings, is_safe, read_secret
from reconciler.access.sessions import Person
from reconciler.errors import Broken, Refused, Transient
from schemas.text import visible

TIMEOUT: Final = 10.0
MAX_ANSWER: Final = 512 * 1024
METADATA_SECONDS: Final = 3600.0
KEYS_SECONDS: Final = 3600.0
KEYS_PAUSE: Final = 10.0
"""Keys are read anew for a token with an unknown one, but not more often."""
LONGEST_CODE: Final = 4096
_ERROR: Final = re.compile(r"[a-z_]{1,60}")
_METHODS: Final = ("client_secret_basic", "client_secret_post")


class Provider:
    """One provider. ``redirect_uri``: where it leads browsers back to.

    Raises:
        Broken: when the roots to trust cannot be read.
    """

    def __init__(self, settings: OidcSettings, redirect_uri: str, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._tls = _trust(settings)
        self._metadata: tuple[float, Mapping[str, Any]] = (float("-inf"), {})
        self._keys: tuple[float, Sequence[Mapping[str, Any]]] = (float("-inf"), ())
        self.label = settings.label or settings.host

    async def address(self, attempt: Attempt) -> str:
        """Return where to lead the browser.

        Raises:
            Transient, Broken: the provider is away, or is not what the settings say.
        """
        address: str = prepare_grant_uri(
            await self._endpoint("authorization_endpoint"),
            client_id=self._settings.client_id,
            response_type="code",
            redirect_uri=self._redirect_uri,
            scope=" ".join(dict.fromkeys(("openid", *self._settings.scopes))),
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return address

    async def identify(self, attempt: Attempt, answer: Mapping[str, str]) -> Person:
        """Return who came back. ``answer``: the query that the provider led the browser back with.

        Raises:
            Refused: 403 ``login-refused``.
            Transient, Broken: the provider is away, or is not what the settings say.
        """
        metadata = await self._discovered()
        code = code_of(answer, self._settings.issuer, metadata)
        tokens = await self._exchange(code, attempt)
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise id_tokens.refused("there is none")
        expected = Expected(self._settings.issuer, self._settings.client_id, attempt.nonce, self._clock())
        held = access_token if isinstance(access_token, str) else ""
        try:
            claims = id_tokens.verify(id_token, await self._provider_keys(), expected, held)
        except UnknownKeyError:
            claims = id_tokens.verify(id_token, await self._provider_keys(anew=True), expected, held)
        said: Mapping[str, Any] = claims
        groups = groups_of(said, self._settings.groups_claim)
        if groups is None and held and metadata.get("userinfo_endpoint"):
            said = await self._more(claims, held)
            groups = groups_of(said, self._settings.groups_claim)
        return person_of(said, self._settings.issuer, groups or ())

    # --- what it is made of ---------------------------------------------------------------------------------------

    async def _discovered(self) -> Mapping[str, Any]:
        read_at, known = self._metadata
        if self._clock() < read_at + METADATA_SECONDS:
            return known
        issuer = self._settings.issuer
        status, found = await self._fetch("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if status != httpx.codes.OK or found.get("issuer") != issuer:
            said = visible(str(found.get("issuer", "")))[:200]
            raise Broken(
                f"What answers at {issuer} is not this provider.",
                hint=f'It calls itself "{said}"; the settings must say exactly that.' if said else "Check the issuer.",
            )
        self._metadata = (self._clock(), found)
        return found

    async def _endpoint(self, name: str) -> str:
        found = (await self._discovered()).get(name)
        if not isinstance(found, str) or not is_safe(found):
            raise Broken(f"The provider names no safe {name}.", hint="It must be an https URL.")
        return found

    async def _provider_keys(self, *, anew: bool = False) -> Sequence[Mapping[str, Any]]:
        read_at, keys = self._keys
        age = self._clock() - read_at
        if age < (KEYS_PAUSE if anew else KEYS_SECONDS):
            return keys
        status, found = await self._fetch("GET", await self._endpoint("jwks_uri"))
        listed = found.get("keys")
        if status != httpx.codes.OK or not isinstance(listed, list):
            raise Transient("The provider does not show its keys.")
        self._keys = (self._clock(), [one for one in listed if isinstance(one, dict)])
        return self._keys[1]

    async def _exchange(self, code: str, attempt: Attempt) -> Mapping[str, Any]:
        endpoint, secret = await self._endpoint("token_endpoint"), read_secret(self._settings)
        supported = (await self._discovered()).get("token_endpoint_auth_methods_supported", _METHODS[:1])
        method = next((one for one in _METHODS if one in supported), _METHODS[0]) if secret else "none"
        body = prepare_token_request(
            "authorization_code", "", redirect_uri=self._redirect_uri, code=code, code_verifier=attempt.verifier
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        auth = ClientAuth(self._settings.client_id, secret, method)
        _, headers, body = auth.prepare("POST", endpoint, headers, body)
        status, tokens = await self._fetch("POST", endpoint, headers=headers, content=body)
        if status != httpx.codes.OK:
            raise _not_taken(tokens.get("error"))
        return tokens

    async def _more(self, claims: Mapping[str, Any], access_token: str) -> Mapping[str, Any]:
        """Return the claims with what userinfo adds; what the ID token says wins."""
        endpoint = await self._endpoint("userinfo_endpoint")
        status, found = await self._fetch("GET", endpoint, headers={"Authorization": f"Bearer {access_token}"})
        if status != httpx.codes.OK or found.get("sub") != claims["sub"]:
            raise id_tokens.refused("what the provider says besides is about somebody else")
        return {**found, **claims}

    async def _fetch(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Ask the provider, and read a JSON object; an answer that is none is an empty one.

        Raises:
            Transient: it is away, slow, or answers with too much.
        """
        asked = {"Accept": "application/json", **(headers or {})}
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client,
                client.stream(method, url, headers=asked, content=content or None) as answer,
            ):
                body = await _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ssl.SSLError) as error:
            raise Transient(
                f"The provider {self.label} cannot be reached ({type(error).__name__}).", hint="Try again in a moment."
            ) from None
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise Transient(f"The provider {self.label} answers {answer.status_code}.", hint="Try again in a moment.")
        return answer.status_code, _object(body)


def _trust(settings: OidcSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except OSError as error:  # of which ssl.SSLError is one
        raise Broken(f"{settings.ca_file} cannot be read as roots: {error.strerror}.", hint=HINT) from None


async def _bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER:
            raise Transient("The provider answers with too much.")
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def code_of(answer: Mapping[str, str], issuer: str, metadata: Mapping[str, Any]) -> str:
    """Return the code that came back.

    Raises:
        Refused: 403 ``login-refused``: the provider says no, another one answers (RFC 9207), or there is no code.
    """
    sender = answer.get("iss")
    is_named = metadata.get("authorization_response_iss_parameter_supported") is True
    if sender != issuer and (sender is not None or is_named):
        raise Refused("Another provider than ours answers.", status=403, code="login-refused", hint="Begin again.")
    if "error" in answer:
        raise _not_taken(answer["error"])
    code = answer.get("code", "")
    if not code or len(code) > LONGEST_CODE or not code.isascii() or not code.isprintable():
        raise Refused("The provider gave no code.", status=403, code="login-refused", hint="Begin again at /login.")
    return code


def _not_taken(error: object) -> Refused:
    said = error if isinstance(error, str) and _ERROR.fullmatch(error) else "no reason that can be shown"
    return Refused(
        f"The provider lets nobody in: {said}.", status=403, code="login-refused", hint="Begin again at /login."
    )
