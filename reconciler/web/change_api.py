"""Changes of objects by people; shapes in ``schemas.changes_api``. Each is a commit by who asks for it.

A change is answered 200 when it is on the remote, 202 when it will be, or waits to be merged; 409 when somebody else
was faster. ``Idempotency-Key``: the same request by the same caller with the same key is one commit, answered alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.documents import AgentState, agent_state, set_agent_state, set_weights
from reconciler.changes.permission import keys_of, require_writable
from reconciler.changes.service import Changes
from reconciler.desired.edits import EditConflict
from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.web.bodies import json_answer, read_json
from reconciler.web.endpoint import Endpoint
from reconciler.web.preconditions import if_match, require_match
from schemas.changes_api import (
    CHANGE_PATH,
    CHANGES_PATH,
    CHECK_PATH,
    CORDON_PATH,
    DIFF_PATH,
    REVERT_PATH,
    UNCORDON_PATH,
    WEIGHTS_PATH,
    ActRequest,
    Change,
    ChangeAnswer,
    ChangeCheck,
    FileEdit,
    RevisionDiff,
    WeightsRequest,
)
from schemas.names import Name
from schemas.objects import ObjectKey

LATER: Final = {202: "Kept, and on the remote later; or on a branch that waits to be merged"}
RETRY_SECONDS: Final = 1
LONGEST_KEY: Final = 255
_COUNTING: Final = ("content-type", "if-match", "if-none-match")
"""Headers that say what is asked for."""
_NAME: TypeAdapter[str] = TypeAdapter(Name)
M = TypeVar("M", bound=BaseModel)


class ChangeApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, *, changes: Changes, authenticator: Authenticator, clock: Callable[[], float]) -> None:
        self._changes = changes
        self._authenticator = authenticator
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("POST", CHECK_PATH, "What a change of objects would do", self.check_change, "write",
                     request=Change, response=ChangeCheck, team=True),
            Endpoint("POST", CHANGES_PATH, "Change objects by one commit", self.submit_change, "write",
                     request=Change, response=ChangeAnswer, also=LATER, team=True),
            Endpoint("GET", CHANGE_PATH, "How a change stands that was accepted", self.change_standing, "read",
                     response=ChangeAnswer),
            Endpoint("GET", DIFF_PATH, "What a revision changed", self.revision_diff, "read", response=RevisionDiff),
            Endpoint("GET", REVERT_PATH, "What taking a revision back would do", self.check_revert, "read",
                     response=ChangeCheck,
                     problems={409: "It is the first commit, or later ones stand in its way.",
                               429: "The caller looks too often."}),
            Endpoint("POST", REVERT_PATH, "Take a revision back by a commit", self.revert_revision, "write",
                     request=ActRequest, response=ChangeAnswer, also=LATER, team=True),
            Endpoint("POST", CORDON_PATH, "Give an agent no new work", self.cordon_agent, "write",
                     request=ActRequest, response=ChangeAnswer, also=LATER),
            Endpoint("POST", UNCORDON_PATH, "Let an agent have new work again", self.uncordon_agent, "write",
                     request=ActRequest, response=ChangeAnswer, also=LATER),
            Endpoint("PUT", WEIGHTS_PATH, "Move traffic between the backends of a route", self.set_route_weights,
                     "write", request=WeightsRequest, response=ChangeAnswer, also=LATER, team=True),
        )  # fmt: skip

    # --- changes ------------------------------------------------------------------------------------------------

    async def check_change(self, request: Request) -> Response:
        caller = self._caller(request)
        _require_some_write(caller)
        change = await read_json(request, Change)
        require_writable(caller, keys_of(edit.path for edit in change.edits).values())
        return json_answer(await self._changes.check(change, caller))

    async def submit_change(self, request: Request) -> Response:
        caller = self._caller(request)
        _require_some_write(caller)
        change = await read_json(request, Change)
        return answered(await self._changes.submit(change, caller, key=await idempotency_key(request)))

    async def change_standing(self, request: Request) -> Response:
        caller, change = self._caller(request), str(request.path_params["change"])[:64]
        if caller.team:
            return answered(await self._standing_for_team(change, caller))
        caller.require("read")
        return answered(await self._changes.standing(change))

    async def _standing_for_team(self, change: str, caller: Identity) -> ChangeAnswer:
        """Tell a caller who is limited to a team what became of a change of that team's files, as it was told to ask.

        Raises:
            Refused: 403 ``other-team``, also where there is no such change.
        """
        try:
            answer = await self._changes.standing(change)
        except Refused:
            answer = ChangeAnswer(state="nothing")
        is_own = bool(answer.files) and {key.team for key in keys_of(answer.files).values()} == {caller.team}
        if not (is_own and caller.may("write", caller.team)):
            caller.require("read", caller.team if is_own else None)
        return answer

    # --- revisions ----------------------------------------------------------------------------------------------

    async def revision_diff(self, request: Request) -> Response:
        self._caller(request).require("read")
        return json_answer(await self._changes.diff(_revision(request)))

    async def check_revert(self, request: Request) -> Response:
        caller = self._caller(request)
        caller.require("read")
        change = await self._changes.reverting(_revision(request))
        return json_answer(await self._changes.check(change, caller))

    async def revert_revision(self, request: Request) -> Response:
        caller = self._caller(request)
        _require_some_write(caller)
        wanted = await read_json(request, ActRequest)
        if (before := await answered_before(self._changes, request, caller)) is not None:
            return before
        answer = await self._changes.revert(
            _revision(request),
            caller,
            message=wanted.message,
            proposal=wanted.proposal,
            key=await idempotency_key(request),
        )
        return answered(answer)

    # --- single fields ------------------------------------------------------------------------------------------

    async def cordon_agent(self, request: Request) -> Response:
        return await self._set_state(request, "cordoned", "Cordon")

    async def uncordon_agent(self, request: Request) -> Response:
        return await self._set_state(request, "active", "Uncordon")

    async def _set_state(self, request: Request, state: AgentState, verb: str) -> Response:
        caller = self._caller(request)
        caller.require("write")
        wanted = await read_json(request, ActRequest)
        name = _named(request, "name")
        path = ObjectKey("Agent", "", name).path
        wanted = wanted.model_copy(update={"message": wanted.message or f"{verb} agent {name}"})
        return await self._edit(
            request, caller, path, wanted, lambda text: set_agent_state(path, _not_out(path, text), state)
        )

    async def set_route_weights(self, request: Request) -> Response:
        caller, team = self._caller(request), _named(request, "team")
        caller.require("write", team)
        wanted = await read_json(request, WeightsRequest)
        name = _named(request, "name")
        path = ObjectKey("Route", team, name).path
        wanted = wanted.model_copy(update={"message": wanted.message or f"Move traffic of {team}/{name}"})
        return await self._edit(request, caller, path, wanted, lambda text: set_weights(path, text, wanted.weights))

    async def _edit(
        self,
        request: Request,
        caller: Identity,
        path: str,
        wanted: ActRequest,
        edit: Callable[[str], str],
    ) -> Response:
        if (before := await answered_before(self._changes, request, caller)) is not None:
            return before
        revision, blob, text = await self._changes.version(path)
        if not blob:
            raise Refused(f"There is no {path}.", status=404, code="unknown-object")
        require_match(if_match(request), blob, revision=revision)
        if text is None:
            raise Refused(f"{path} is no text.", status=409, code="not-editable", hint="Mend it with git.")
        try:
            edited = edit(text)
        except EditConflict as conflict:
            raise Refused(str(conflict), status=409, code="not-editable") from None
        change = Change(
            edits=(FileEdit(path=path, text=edited, expected=blob),), message=wanted.message, proposal=wanted.proposal
        )
        return answered(await self._changes.submit(change, caller, key=await idempotency_key(request)))

    def _caller(self, request: Request) -> Identity:
        return self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())


def answered(answer: ChangeAnswer) -> Response:
    """Return the response for what became of a change.

    Raises:
        Refused: 409 ``conflicted``: somebody else changed the file first, and nothing was written.
    """
    if answer.state == "conflicted":
        hint = "Look at the new version, and make the change again."
        raise Refused(answer.message, status=409, code="conflicted", hint=hint, more={"id": answer.id})
    if answer.state in ("pending", "proposed"):
        headers = {"Location": f"{CHANGES_PATH}/{answer.id}", "Retry-After": str(RETRY_SECONDS)}
        return json_answer(answer, 202, headers)
    return json_answer(answer)


async def answered_before(changes: Changes, request: Request, caller: Identity) -> Response | None:
    """Return the answer to a request that was sent with the same key before; None where there was none.

    Raises:
        Refused: as :func:`answered`; 400 ``bad-idempotency-key``.
    """
    known = await changes.again(caller, await idempotency_key(request))
    return None if known is None else answered(known)


async def idempotency_key(request: Request) -> str:
    """Return a digest of a request that may be sent again, with its key; empty where it has no key.

    What is asked for counts, so that a key that is used twice by mistake does not hide another change.

    Raises:
        Refused: 400 ``bad-idempotency-key``.
    """
    key = request.headers.get("idempotency-key", "").strip()
    if len(key) > LONGEST_KEY or not key.isascii():
        text = f"Idempotency-Key must be at most {LONGEST_KEY} characters of ASCII."
        raise Refused(text, status=400, code="bad-idempotency-key")
    if not key:
        return ""
    headers = [request.headers.getlist(name) for name in _COUNTING]
    asked = (request.method, request.url.path, request.url.query, key, headers)
    return hashlib.sha256(json.dumps(asked).encode() + await request.body()).hexdigest()


def _not_out(path: str, text: str) -> str:
    """Refuse to let an agent in by the way that was locked out.

    Raises:
        Refused: 409 ``agent-quarantined``.
    """
    if agent_state(text) == "quarantined":
        hint = "Delete spec.state in its file, if that is meant."
        raise Refused(f"{path} keeps the agent out.", status=409, code="agent-quarantined", hint=hint)
    return text


def _require_some_write(caller: Identity) -> None:
    """Refuse who may change nothing at all, before anything is read for it.

    Raises:
        Refused: 403.
    """
    if not any(caller.may("write", team) for team in (None, caller.team or None, *caller.of_teams)):
        caller.require("write")


def _revision(request: Request) -> str:
    """Return the id in the path, or the beginning of one.

    Raises:
        Refused: 404 ``unknown-revision``.
    """
    name = str(request.path_params["revision"])
    if not 7 <= len(name) <= 64 or not set(name) <= set("0123456789abcdef"):
        hint = "Give at least 7 digits of a commit."
        raise Refused("This is no revision.", status=404, code="unknown-revision", hint=hint)
    return name


def _named(request: Request, what: str) -> str:
    """Return a name in the path.

    Raises:
        Refused: 404 ``unknown-object``.
    """
    try:
        return _NAME.validate_python(request.path_params[what])
    except ValidationError:
        raise Refused("There is no such object.", status=404, code="unknown-object") from None
