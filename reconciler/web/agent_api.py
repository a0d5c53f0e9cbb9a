"""Routes for enrolment and tokens; shapes in ``schemas.enrolment``.

``POST /api/v1/enrolment-tokens``        operator, scope ``enrol``           201 :class:`NewToken`
``POST /api/v1/agents/enrol``            one-time token in the body          201 or 202 :class:`Enrolment`
``GET  /api/v1/agents/enrolments/{id}``  DPoP proof by the enrolling key     200 :class:`Enrolment`
``POST /api/v1/agents/token``            assertion in the form, DPoP proof   200 :class:`TokenAnswer`
``GET  /.well-known/jwks.json``          no credentials                      200 :class:`JwkSet`
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.enrolment import Enrolments
from reconciler.agents.enrolment_tokens import EnrolmentTokens
from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.keystore import KeyStore
from reconciler.pki.token_endpoint import TokenEndpoint
from reconciler.web.bodies import json_answer, read_json, require_type
from reconciler.web.callers import peer_of
from reconciler.web.endpoint import Endpoint
from reconciler.web.problem import problem
from schemas.enrolment import (
    ENROL_PATH,
    ENROLMENTS_PATH,
    TOKEN_ENDPOINT_PATH,
    TOKENS_PATH,
    Enrolment,
    EnrolmentRequest,
    NewToken,
    NewTokenRequest,
    TokenAnswer,
)
from schemas.jwk import JwkSet
from schemas.names import seconds

JWKS_PATH: Final = "/.well-known/jwks.json"
STATUS_SECONDS: Final = 1
"""Retry-After of an enrolment that is queued."""
_OAUTH_ERRORS: Final = {"invalid-request": "invalid_request", "unsupported-grant-type": "unsupported_grant_type"}
_PROOF_ERRORS: Final = frozenset({"proof-missing", "wrong-target", "key-mismatch"})


_FORM: Final = {
    "type": "object",
    "required": ["grant_type", "client_assertion_type", "client_assertion"],
    "properties": {
        "grant_type": {"const": "client_credentials"},
        "client_assertion_type": {"const": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
        "client_assertion": {"type": "string"},
    },
}


class AgentApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        enrolments: Enrolments,
        tokens: EnrolmentTokens,
        endpoint: TokenEndpoint,
        keys: KeyStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._enrolments = enrolments
        self._tokens = tokens
        self._endpoint = endpoint
        self._keys = keys
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table. Each handler asks for the credentials that its caller can have."""
        return (
            Endpoint("POST", TOKENS_PATH, "Make a one-time token for one agent", self.create_token, "enrol",
                     request=NewTokenRequest, response=NewToken, status=201),
            Endpoint("POST", ENROL_PATH, "Enrol with a one-time token", self.enrol,
                     request=EnrolmentRequest, response=Enrolment, status=201,
                     also={202: "Queued, or proposed: Location says where to ask"},
                     problems={401: "The enrolment token is not valid.",
                               403: "The token was spent or is for another agent, or the key was locked out.",
                               429: "Too many attempts from there, or too many enrolments an hour."}),
            Endpoint("GET", f"{ENROLMENTS_PATH}/{{id}}", "Where an enrolment stands, for its own key", self.enrolment,
                     response=Enrolment, proof=True),
            Endpoint("POST", TOKEN_ENDPOINT_PATH, "Access token for a client assertion (RFC 7523)", self.token,
                     response=TokenAnswer, proof=True, takes={"application/x-www-form-urlencoded": _FORM}),
            Endpoint("GET", JWKS_PATH, "Public keys of this control plane", self.jwks, response=JwkSet),
        )  # fmt: skip

    async def create_token(self, request: Request) -> Response:
        now = self._clock()
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, now)
        identity.require("enrol")
        wanted = await read_json(request, NewTokenRequest)
        new = await self._tokens.create(wanted.agent, ttl=seconds(wanted.ttl), created_by=str(identity), now=now)
        return json_answer(new, 201)

    async def enrol(self, request: Request) -> Response:
        self._authenticator.addressed(str(request.url))  # else the agent would be committed, and could never connect
        wanted = await read_json(request, EnrolmentRequest)
        enrolment = await self._enrolments.enrol(wanted, peer=peer_of(request, self._authenticator))
        if enrolment.state == "committed":
            return json_answer(enrolment, 201)
        headers = {"Location": enrolment.status_url, "Retry-After": str(STATUS_SECONDS)}
        return json_answer(enrolment, 202, headers)

    async def enrolment(self, request: Request) -> Response:
        def prove(thumbprint: str) -> None:
            proof = request.headers.get("dpop")
            self._authenticator.prove_key(thumbprint, request.method, str(request.url), proof, self._clock())

        return json_answer(await self._enrolments.status(request.path_params["id"], prove))

    async def token(self, request: Request) -> Response:
        try:
            answer = self._endpoint.exchange(
                await _form(request),
                method=request.method,
                url=str(request.url),
                proof=request.headers.get("dpop"),
                now=self._clock(),
            )
        except Refused as refused:
            return problem(refused, {"error": _oauth_error(refused), "error_description": refused.message})
        return json_answer(answer)

    async def jwks(self, _: Request) -> Response:
        keys = (*self._keys.jwks("access").keys, *self._keys.jwks("desired").keys)
        return json_answer(JwkSet(keys=keys), headers={"Cache-Control": "public, max-age=300"})


async def _form(request: Request) -> dict[str, str]:
    require_type(request, "application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl((await request.body()).decode("ascii"), strict_parsing=True, max_num_fields=10)
    except ValueError:
        pairs = []
    form = dict(pairs)
    if not form or len(form) != len(pairs):
        raise Refused("The form is empty, broken or repeats a field.", status=400, code="invalid-request")
    return form


def _oauth_error(refused: Refused) -> str:
    """RFC 6749, 5.2 and RFC 9449, 5."""
    if refused.code in _PROOF_ERRORS:
        return "invalid_dpop_proof"
    return _OAUTH_ERRORS.get(refused.code, "invalid_client")
