"""Who sends a request: the one place where credentials become an :class:`Identity`.

Agents send ``Authorization: DPoP <access token>`` and ``DPoP: <proof>``; operators ``Authorization: Bearer <token>``
that they sign themselves (docs/adr/0007), people and CI one that they were given (docs/adr/0029). Browsers send the
cookie of a session (docs/adr/0048). It counts where nothing else is sent, never for a WebSocket, and only from pages of
our own: browsers name in ``Origin`` the page that asks (RFC 6454), so no other site can act in a person's name.
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

Scope = Literal["admin", "read", "plan", "approve", "enrol", "operate", "write", "exec", "agent"]
"""What an endpoint asks for: tokens and sessions of others, the fleet file · what is known · what a change is compared
with · let a held plan through · make enrolment tokens · look at the remote now, lock agents out, read logs, restart ·
change objects by commits · run programs in what is deployed · what an agent does for itself."""
OPERATOR_SCOPES: Final[frozenset[str]] = frozenset(
    {"admin", "read", "plan", "approve", "enrol", "operate", "write", "exec"}
)
"""What the operator of the machine itself may ask for."""
GRANTABLE: Final[frozenset[str]] = OPERATOR_SCOPES - {"admin"}
"""What a token of a person or of CI may be good for."""
INCLUDED: Final[Mapping[str, frozenset[str]]] = {"admin": OPERATOR_SCOPES, "read": frozenset({"plan"})}
"""Scope → those that it includes."""

SESSION_COOKIE: Final = "__Host-cloudlunacy"
"""A browser takes this prefix from the host itself alone, over TLS, without Domain (RFC 6265bis, 4.1.3.2)."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURE: Final = {"http": "https", "ws": "wss"}
_MAIL_HOSTS: Final = {"operator": "operators", "person": "people", "agent": "agents"}


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


class NoSessions:
    """Knows none."""

    def check(self, cookie: str, now: float, *, active: bool) -> Identity:  # noqa: ARG002
        """Refuse whatever it is."""
        raise refused("session-ended", "The session is not known here.", "Log in.")

    def is_good(self, identity: Identity, now: float) -> bool:  # noqa: ARG002
        """None is."""
        return False


_NONE: Final = NoTokens()
_NO_SESSIONS: Final = NoSessions()


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
    of_teams: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    """Team → what the caller may do besides, with what is that team's."""
    full_name: str = ""
    mail: str = ""
    """Of a person who logged in, as far as they are known; for commits."""
    roles: tuple[str, ...] = ()
    """What a person who logged in may do, in words; endpoints ask for scopes."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def author(self) -> tuple[str, str]:
        """Name and mail address for commits; where no address is known one that leads nowhere (RFC 6761, 6.3)."""
        mail = self.mail or f"{self.name}@{_MAIL_HOSTS.get(self.kind, self.kind)}.localhost"
        return self.full_name or self.name, mail

    def may(self, scope: Scope, team: str | None = None) -> bool:
        """Say whether it may do it. ``team``: whose object it is about; None: it is about more than one team's."""
        if self.team and team != self.team:
            return False
        held = self.scopes if team is None else self.scopes | self.of_teams.get(team, frozenset())
        return any(scope == one or scope in INCLUDED.get(one, ()) for one in held)

    def require(self, scope: Scope, team: str | None = None) -> None:
        """Refuse who may not do it; as :meth:`may`.

        Raises:
            Refused: 403 ``insufficient-scope``, ``other-team``.
        """
        if self.team and team != self.team:
            text = f'This token is for deployments of team "{self.team}" alone.'
            raise Refused(text, status=403, code="other-team", actor=str(self))
        if not self.may(scope, team):
            raise Refused(f'This needs the scope "{scope}".', status=403, code="insufficient-scope", actor=str(self))


class GivenSessions(Protocol):
    """Sessions of browsers. :class:`reconciler.access.sessions.Sessions` is one."""

    def check(self, cookie: str, now: float, *, active: bool) -> Identity:
        """Return whose it is. ``cookie`` is the value of :data:`SESSION_COOKIE`; ``active``: a person did something.

        Raises:
            Refused: 401 ``session-ended``; 403 ``no-role``.
        """
        ...

    def is_good(self, identity: Identity, now: float) -> bool:
        """Say whether a session still is, and may still do what it might."""
        ...


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
        sessions: GivenSessions = _NO_SESSIONS,
    ) -> None:
        self.issuer = issuer
        self._public = origin(issuer)
        self._origins = frozenset(origin(url) for url in (issuer, *origins))
        self._keys = keys
        self._agents = agents
        self._replays = replays
        self._given = given
        self._sessions = sessions

    def authenticate(self, method: str, url: str, headers: Mapping[str, str], now: float) -> Identity:
        """Return who sends the request. ``url`` is absolute; names of headers count in any case.

        Raises:
            Refused: 401 with what is wrong; 403 ``agent-quarantined``, ``foreign-origin``, ``no-role``; 429 when one
                key sends too much.
        """
        fields = {name.lower(): value for name, value in headers.items()}
        if "authorization" not in fields and url.startswith("http") and (cookie := session_cookie(fields)):
            self.require_own_origin(method, fields)
            return self._sessions.check(cookie, now, active=is_by_a_person(method, fields))
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
        if identity.kind not in ("ci", "person"):
            return True
        return self._given.is_good(identity.thumbprint, now) or self._sessions.is_good(identity, now)

    def require_own_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse what a page of another site made a browser send; ``headers`` by their names in small letters.

        A browser sends ``Origin`` with every request that changes something (Fetch, 3.1). One that is sent must be
        ours, also where nothing is changed; a sibling subdomain is another one, and ``null`` is nobody.

        Raises:
            Refused: 403 ``foreign-origin``.
        """
        sent = headers.get("origin")
        if (sent is None and method in SAFE_METHODS) or sent in self._origins:  # in normal form, as browsers write them
            return
        raise Refused(
            "The request does not come from a page of this control plane.",
            status=403,
            code="foreign-origin",
            hint=f"Open {self.issuer} and do it there; programs send a token instead of a cookie.",
        )

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


def session_cookie(headers: Mapping[str, str]) -> str:
    """Return the value of the session's cookie; empty without one, and where two say different things."""
    return own_cookie(headers, SESSION_COOKIE)


def own_cookie(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a cookie of ours; empty without one, and where two say different things.

    Only the white space of HTTP counts as such (RFC 9110, 5.6.3). Python knows more, and a name that begins with that
    has no prefix to a browser: a sibling subdomain could set it.
    """
    pairs = (part.strip(" \t").partition("=") for part in headers.get("cookie", "").split(";"))
    found = {value for sent, _, value in pairs if sent == name}
    return found.pop().removeprefix('"').removesuffix('"') if len(found) == 1 else ""


def is_by_a_person(method: str, headers: Mapping[str, str]) -> bool:
    """Say whether somebody did something, and not the page by itself: what a script fetches has no destination.

    See Fetch Metadata Request Headers, 2.2; browsers that do not send them count as people.
    """
    return method not in SAFE_METHODS or headers.get("sec-fetch-dest") != "empty"


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
