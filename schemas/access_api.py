"""Requests and answers of the API for who may do what.

``POST /api/v1/agents/{name}/revocation``  lock an agent out    :class:`RevocationRequest` → :class:`AgentRevocation`
``POST /api/v1/tokens``                    make a token         :class:`ApiTokenRequest` → :class:`NewApiToken`
``GET  /api/v1/tokens``                    all that are known   → :class:`ApiTokenList`
``POST /api/v1/tokens/{token}/revocation`` end one, by name or id → :class:`ApiTokenView`
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, field_serializer, model_validator

from schemas.base import Model
from schemas.names import Name

REVOCATION_PATH: Final = "/api/v1/agents/{name}/revocation"
API_TOKENS_PATH: Final = "/api/v1/tokens"
API_TOKEN_REVOCATION_PATH: Final = "/api/v1/tokens/{token}/revocation"  # noqa: S105  a path
API_TOKEN_PREFIX: Final = "clt_"  # noqa: S105  no token
"""Of tokens of people and CI: by it scanners for secrets find one, and it is known from a JWT."""
LONGEST_SECONDS: Final = 366 * 86_400.0
"""That a token of a person or of CI may live."""

Kind = Literal["ci", "person"]
Lifetime = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}[smhd]$")]
"""Seconds, minutes, hours or days, such as 30d."""
Grantable = Literal["read", "plan", "approve", "enrol", "operate", "write", "exec"]
"""read: all that is known · plan: only what a change is compared with · approve: let a held plan through · enrol: make
enrolment tokens · operate: look at the remote now, lock agents out, read logs, restart · write: change objects by
commits · exec: run programs in what is deployed, where the fleet allows it. ``read`` includes ``plan``."""
TEAM_SCOPES: Final = frozenset({"read", "operate", "write", "exec"})
"""What a token may be good for that is limited to the objects of a team."""

Reason = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""One line of text for people."""


def seconds_of(lifetime: str) -> float:
    """Turn a valid :data:`Lifetime` into seconds."""
    return int(lifetime[:-1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}[lifetime[-1]]


def without_secret(text: str) -> str:
    """Return the id where somebody gives the token itself, ``clt_<id>.<secret>``; a name or an id stays as it is."""
    return text.strip().removeprefix(API_TOKEN_PREFIX).partition(".")[0]


class RevocationRequest(Model):
    """Lock an agent out. ``quarantine``: keep its file, with ``state: quarantined``, instead of deleting it."""

    quarantine: bool = False
    reason: Reason = ""


class AgentRevocation(Model):
    """The agent is locked out; ``state`` says how far git has been told.

    committed: the branch says so in ``revision``; pending: durably queued; proposed: on the branch ``proposal``, which
    waits to be merged; conflicted: the file could not be edited, ``message`` says why. In each the agent stays out.
    """

    name: str
    state: Literal["committed", "pending", "proposed", "conflicted"]
    quarantine: bool
    file: str
    revision: str = ""
    proposal: str = ""
    message: str = ""
    disconnected: bool
    """It was connected, and is no more."""
    certificates: int | None = None
    """How many of its certificates were revoked just now; None where the disk did not take it yet."""


class ApiTokenRequest(Model):
    """Make a token for a person or for CI. ``name`` is one that no good token has; a new one where it is left out.
    With ``team`` it is good for the deployments of that team and for nothing else.
    """

    kind: Kind
    scopes: Annotated[tuple[Grantable, ...], Field(min_length=1, max_length=7)]
    expires: Lifetime = "30d"
    name: Name | None = None
    team: Name | None = None

    @model_validator(mode="after")
    def _fits_a_team(self) -> Self:
        if self.team is not None and not TEAM_SCOPES.issuperset(self.scopes):
            raise ValueError(f"a token of a team may have the scopes {', '.join(sorted(TEAM_SCOPES))}")
        return self


class ApiTokenView(Model):
    """What is known of a token; its secret is not."""

    id: str
    name: str
    kind: Kind
    scopes: tuple[str, ...]
    team: str = ""
    """The team whose deployments are all that it is good for; empty: no such limit."""
    state: Literal["good", "expired", "revoked"]
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None
    """To the minute; None where it was never used."""


class NewApiToken(ApiTokenView):
    """The only time that the token is shown."""

    token: SecretStr

    @field_serializer("token", when_used="json")
    def _shown_once(self, token: SecretStr) -> str:
        return token.get_secret_value()


class ApiTokenList(Model):
    """Oldest first; of those that ended, what is more than 90 days ago is forgotten, or more than a thousand."""

    tokens: tuple[ApiTokenView, ...]
