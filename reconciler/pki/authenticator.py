"""Who sends a request: the one place where credentials become an :class:`Identity`.

Agents send ``Authorization: DPoP <access token>`` and ``DPoP: <proof>``; operators ``Authorization: Bearer <token>``
that they sign themselves (docs/adr/0007), people and CI one that they were given (docs/adr/0029). Cookies never count,
so no other site can make a browser send credentials.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from reconciler.errors import Refused
from reconciler.pki import tokens
from reconciler.pki.jose import refused
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from reconciler.store.protocols import ApiToken
from schemas.access_api import API_TOKEN_PREFIX
from schemas.tokens import OPERATOR_LIFETIME, origin

Scope = Literal["admin", "read", "plan", "approve", "enrol", "operate", "exec", "agent"]
"""What an endpoint asks for: tokens of people and CI · what is known · what a change is compared with · let a held plan
through · make enrolment tokens · look at the remote now, lock agents out, read logs, restart · run programs in what is
deployed · what an agent does for itself."""
OPERATOR_SCOPES: Final[frozenset[str]] = frozenset({"admin", "read", "plan", "approve", "enrol", "operate", "exec"})
"""What the operator of the machine itself may ask for."""
GRANTABLE: Final[frozenset[str]] = OPERATOR_SCOPES - {"admin"}
"""What a token of a person or of CI may be good for."""
INCLUDED: Final[Mapping[str, frozenset[str]]] = {"admin": OPERATOR_SCOPES, "read": frozenset({"plan"})}
"""Scope → those that it includes."""

_SECURE: Final = {"http": "https", "ws": "wss"}


class KnownAgents(Protocol):
    """The agents in service. :class:`reconciler.agents.directory.AgentDirectory` is one."""

    def thumbprint(self, name: str) -> str | None: ...

    def quarantined(self, name: str) -> bool: ...


class GivenTokens(Protocol):
    """Tokens of people and CI. :class:`reconciler.pki.api_tokens.ApiTokens` is one."""

    def check(self, token: str, now: float) -> ApiToken:
        """Return whose it is.

        Raises:
            Refused: 401.
        """
        ...

    def is_good(self, token_id: str, now: float) -> bool:
        """Say whether a token that was good still is."""
        ...


class NoTokens:
    """Knows none."""

    def is_good(self, token_id: str, now: float) -> bool:  # noqa: ARG002
        """None is."""
        return False

    def check(self, token: str, now: float) -> ApiToken:  # noqa: ARG002
        """Refuse whatever it is."""
        raise refused("bad-token", "The token is not known here.")


_NONE: Final = NoTokens()


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who proved a key, or has a token; ``thumbprint`` is of the key, or the id of the token."""

    kind: Literal["agent", "operator", "ci", "person"]
    name: str
    scopes: frozenset[str]
    thumbprint: str
    accepted_until: float = field(default=math.inf, compare=False)
    """POSIX seconds until which what was shown is good, for answers that go on."""
    team: str = ""
    """The team whose deployments are all that the caller may see and use; empty: no such limit."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    def require(self, scope: Scope, *, team: str | None = None) -> None:
        """Refuse who may not do it. ``team``: whose deployment it is about; None: it is about more than one team's.

        Raises:
            Refused: 403 ``insufficient-scope``, ``other-team``.
        """
        if self.team and team != self.team:
            text = f'This token is for deployments of team "{self.team}" alone.'
            raise Refused(text, status=403, code="other-team")
        if not any(scope == one or scope in INCLUDED.get(one, ()) for one in self.scopes):
            raise Refused(f'This needs the scope "{scope}".', status=403, code="insufficient-scope")


class Authenticator:
    """Checks the credentials of requests to this control plane.

    ``issuer`` is its public URL; ``origins`` are the origins at which it can be reached. A proof for any other is
    refused, whatever the Host header claims, so that a proof made for another server is worth nothing here.
    """

    def __init__(
        self,
        *,
        issuer: str,
        origins: Collection[str],
        keys: KeyStore,
        agents: KnownAgents,
        replays: ReplayCache,
        given: GivenTokens = _NONE,
    ) -> None:
        self.issuer = issuer
        self._public = origin(issuer)
        self._origins = frozenset(origin(url) for url in (issuer, *origins))
        self._keys = keys
        self._agents = agents
        self._replays = replays
        self._given = given

    def authenticate(self, method: str, url: str, headers: Mapping[str, str], now: float) -> Identity:
        """Return who sends the request. ``url`` is absolute; names of headers count in any case.

        Raises:
            Refused: 401 with what is wrong; 403 ``agent-quarantined``; 429 when one key sends too much.
        """
        fields = {name.lower(): value for name, value in headers.items()}
        scheme, _, token = fields.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            bearer = token.strip()
            return self._holder(bearer, now) if bearer.startswith(API_TOKEN_PREFIX) else self._operator(bearer, now)
        if scheme.lower() == "dpop":
            return self._agent(method, url, token.strip(), fields.get("dpop"), now)
        raise refused("credentials-missing", "This needs credentials.")

    def prove_key(self, thumbprint: str, method: str, url: str, proof: str | None, now: float) -> None:
        """Check that a request without an access token comes from the holder of a certain key.

        Raises:
            Refused: 401, 429; a proof by another key is not remembered, so strangers cannot fill the memory.
        """
        proven = self._read_proof(method, url, proof, None, now)
        _same_key(proven.thumbprint, thumbprint)
        self._replays.use(proven.thumbprint, proven.jti, until=proven.accepted_until, now=now)

    def _operator(self, token: str, now: float) -> Identity:
        access = tokens.verify_operator_token(token, keys=self._keys.verifying("operator"), issuer=self.issuer, now=now)
        return Identity(
            "operator", access.name, access.scopes & OPERATOR_SCOPES, access.thumbprint, access.accepted_until
        )

    def _holder(self, token: str, now: float) -> Identity:
        found = self._given.check(token, now)
        until = min(found.expires_at, now + OPERATOR_LIFETIME)  # whoever listens on comes again, and is looked at again
        return Identity(found.kind, found.name, frozenset(found.scopes) & GRANTABLE, found.id, until, found.team)

    def _agent(self, method: str, url: str, token: str, proof: str | None, now: float) -> Identity:
        access = tokens.verify_access_token(token, keys=self._keys.verifying("access"), issuer=self.issuer, now=now)
        enrolled = self._agents.thumbprint(access.name)
        if enrolled is None or not hmac.compare_digest(enrolled, access.thumbprint):
            raise refused("agent-revoked", "This agent is not in service any more.", "Enrol it again with a new token.")
        if self._agents.quarantined(access.name):
            raise quarantined(access.name)
        proven = self._read_proof(method, url, proof, token, now)
        _same_key(proven.thumbprint, access.thumbprint)
        self._replays.use(proven.thumbprint, proven.jti, until=proven.accepted_until, now=now)
        return Identity("agent", access.name, access.scopes & {"agent"}, access.thumbprint, access.accepted_until)

    def is_still_good(self, identity: Identity, now: float) -> bool:
        """Say whether a caller whose answer goes on would still be let in: a token of people or CI may have ended."""
        return identity.kind not in ("ci", "person") or self._given.is_good(identity.thumbprint, now)

    def addressed(self, url: str) -> str:
        """Return the URL of a request as its client wrote it.

        A proxy before us may have ended TLS: where the Host is that of the public URL, the public scheme counts. No
        forwarded header is believed.

        Raises:
            Refused: 401 ``wrong-target`` when this control plane is not known there, so that no proof could be good.
        """
        scheme, _, rest = url.partition("://")
        asked = f"{_SECURE[scheme]}://{rest}" if scheme in _SECURE else url
        try:
            if origin(asked) == self._public:
                return asked
            if origin(url) in self._origins:
                return url
        except ValueError:
            pass
        raise refused(
            "wrong-target",
            "This control plane is not known under the address of the request.",
            f"Use {self.issuer}, or give serve this address as --public-url.",
        )

    def is_relayed(self, url: str) -> bool:
        """Say whether a proxy sent a request that came to ``url``: it came without the TLS that agents are told of."""
        return self._public.startswith("https:") and not url.startswith("https:")

    def _read_proof(self, method: str, url: str, proof: str | None, token: str | None, now: float) -> tokens.Proven:
        if not proof:
            raise refused("proof-missing", "This needs a proof of possession in the header DPoP (RFC 9449).")
        return tokens.verify_dpop_proof(proof, method=method, url=self.addressed(url), access_token=token, now=now)


def quarantined(name: str) -> Refused:
    """Return the refusal of an agent that is in service, and that its file keeps out."""
    return Refused(
        "The agent's file keeps it out (spec.state: quarantined).",
        status=403,
        code="agent-quarantined",
        hint=f"It may connect again, without enrolling, when agents/{name}.yaml says so.",
    )


def _same_key(proven: str, wanted: str) -> None:
    if not hmac.compare_digest(proven, wanted):
        raise refused("key-mismatch", "The proof was made with another key than the one that is needed.")
