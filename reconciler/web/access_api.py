"""Routes for who may do what; shapes in ``schemas.access_api``."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.revocation import Revocations
from reconciler.pki.api_tokens import ApiTokens
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.web.bodies import json_answer, read_json
from reconciler.web.endpoint import Endpoint
from schemas.access_api import (
    API_TOKEN_REVOCATION_PATH,
    API_TOKENS_PATH,
    REVOCATION_PATH,
    AgentRevocation,
    ApiTokenList,
    ApiTokenRequest,
    ApiTokenView,
    NewApiToken,
    RevocationRequest,
)


class AccessApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        revocations: Revocations,
        tokens: ApiTokens,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._tokens = tokens
        self._revocations = revocations
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("POST", REVOCATION_PATH, "Lock an agent out, at once", self.revoke_agent, "operate",
                     request=RevocationRequest, response=AgentRevocation,
                     also={202: "Locked out; git is told once the remote takes it, or somebody merges it"}),
            Endpoint("GET", API_TOKENS_PATH, "Tokens of people and CI", self.api_tokens, "admin",
                     response=ApiTokenList),
            Endpoint("POST", API_TOKENS_PATH, "Make a token for a person or for CI", self.create_api_token, "admin",
                     request=ApiTokenRequest, response=NewApiToken, status=201),
            Endpoint("POST", API_TOKEN_REVOCATION_PATH, "End a token, by its name or id", self.revoke_api_token,
                     "admin", response=ApiTokenView),
        )  # fmt: skip

    async def revoke_agent(self, request: Request) -> Response:
        caller = self._caller(request, "operate")
        wanted = await read_json(request, RevocationRequest)
        name = request.path_params["name"]
        done = await self._revocations.revoke(name, wanted, actor=str(caller), author=caller.author)
        return json_answer(done, 200 if done.state == "committed" else 202)

    async def api_tokens(self, request: Request) -> Response:
        self._caller(request, "admin")
        return json_answer(ApiTokenList(tokens=self._tokens.views()))

    async def create_api_token(self, request: Request) -> Response:
        caller = self._caller(request, "admin")
        wanted = await read_json(request, ApiTokenRequest)
        return json_answer(await self._tokens.create(wanted, by=str(caller)), 201)

    async def revoke_api_token(self, request: Request) -> Response:
        caller = self._caller(request, "admin")
        return json_answer(await self._tokens.revoke(request.path_params["token"], by=str(caller)))

    def _caller(self, request: Request, scope: Scope) -> Identity:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require(scope)
        return identity
