"""The exchange at the token endpoint: an agent's assertion and proof for an access token bound to the same key."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from reconciler.errors import Refused
from reconciler.pki import tokens
from reconciler.pki.authenticator import Authenticator, KnownAgents, quarantined
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from schemas.enrolment import TokenAnswer
from schemas.tokens import ACCESS_LIFETIME, AGENT_SCOPE, ASSERTION_GRANT, ASSERTION_TYPE


def _new_id() -> str:
    return secrets.token_urlsafe(16)


class TokenEndpoint:
    """RFC 6749, 4.4 with client authentication by RFC 7523, 2.2 and a DPoP proof (RFC 9449, 5)."""

    def __init__(
        self,
        *,
        keys: KeyStore,
        agents: KnownAgents,
        authenticator: Authenticator,
        replays: ReplayCache,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        self._keys = keys
        self._agents = agents
        self._authenticator = authenticator
        self._replays = replays
        self.lifetime = ACCESS_LIFETIME
        """Seconds that a token is good."""
        self._new_id = new_id

    def exchange(self, form: Mapping[str, str], *, method: str, url: str, proof: str | None, now: float) -> TokenAnswer:
        """Return an access token.

        Raises:
            Refused: 400 for another grant or client authentication; 401 for a bad assertion or proof; 403 for a
                quarantined agent; 429.
        """
        if form.get("grant_type") != ASSERTION_GRANT:
            raise Refused(f"Only the grant {ASSERTION_GRANT} is known.", status=400, code="unsupported-grant-type")
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
            raise Refused("This needs a client assertion (RFC 7523).", status=400, code="invalid-request")
        issuer = self._authenticator.issuer
        proven = tokens.verify_client_assertion(
            form["client_assertion"], issuer=issuer, enrolled=self._agents.thumbprint, now=now
        )
        if self._agents.quarantined(proven.name):
            raise quarantined(proven.name)
        self._authenticator.prove_key(proven.thumbprint, method, url, proof, now)
        self._replays.use(proven.thumbprint, proven.jti, until=proven.accepted_until, now=now)
        token = tokens.issue_access_token(
            self._keys.signing("access"),
            issuer=issuer,
            name=proven.name,
            thumbprint=proven.thumbprint,
            now=now,
            jti=self._new_id(),
            lifetime=self.lifetime,
        )
        return TokenAnswer(access_token=token, expires_in=int(self.lifetime), scope=AGENT_SCOPE)
