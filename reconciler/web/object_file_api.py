"""One object: read, written, patched, deleted, and who changed it; shapes in ``schemas.changes_api``.

The entity tag of an object is the id of its blob. What is there is overwritten or deleted only by who says which
version they saw (If-Match, RFC 9110, 13.1.1), or that they do not care (``If-Match: *``); without it 428 (RFC 6585).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.documents import patch_document, put_document
from reconciler.changes.permission import require_writable
from reconciler.changes.service import Changes
from reconciler.desired.edits import EditConflict
from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.web.bodies import json_answer
from reconciler.web.change_api import LATER, answered, answered_before, idempotency_key
from reconciler.web.endpoint import Endpoint
from reconciler.web.object_views import Control, object_view
from reconciler.web.preconditions import if_match, if_none_match, is_known, require_match
from reconciler.web.queries import limit_of
from schemas.changes_api import (
    HISTORY_PATH,
    MAX_FILE,
    MERGE_PATCH,
    OBJECT_PATH,
    YAML_TYPE,
    Change,
    ChangeAnswer,
    FileEdit,
    History,
    ObjectView,
)
from schemas.objects import TEAM_KINDS, ObjectKey, key_of_path

_ANY_OBJECT: Final = {"type": "object"}
_OPTIONS: Final = {
    "message": "what the commit says",
    "proposal": "true: a branch that waits to be merged",
    "acceptPlain": "true: values that look like secrets are none",
}


class ObjectFileApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self, *, control: Control, changes: Changes, authenticator: Authenticator, clock: Callable[[], float]
    ) -> None:
        self._control = control
        self._changes = changes
        self._authenticator = authenticator
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", HISTORY_PATH, "Commits that changed an object", self.object_history, "read",
                     response=History, query={"limit": "at most 1000"}, team=True),
            Endpoint("GET", OBJECT_PATH, "An object: wanted, served and seen", self.get_object, "read",
                     response=ObjectView, headers=("ETag",), team=True),
            Endpoint("PUT", OBJECT_PATH, "Write an object by a commit", self.put_object, "write",
                     response=ChangeAnswer, query=_OPTIONS, also=LATER,
                     takes={"application/json": _ANY_OBJECT, YAML_TYPE: {"type": "string", "maxLength": MAX_FILE}},
                     problems={428: "There is such an object, and If-Match does not say which version was seen."},
                     team=True),
            Endpoint("PATCH", OBJECT_PATH, "Change fields of an object by a commit (RFC 7396)", self.patch_object,
                     "write", response=ChangeAnswer, query=_OPTIONS, also=LATER, takes={MERGE_PATCH: _ANY_OBJECT},
                     team=True),
            Endpoint("DELETE", OBJECT_PATH, "Delete an object by a commit", self.delete_object, "write",
                     response=ChangeAnswer, query=_OPTIONS, also=LATER,
                     problems={428: "If-Match does not say which version was seen."}, team=True),
        )  # fmt: skip

    # --- reading ------------------------------------------------------------------------------------------------

    async def get_object(self, request: Request) -> Response:
        key = self._readable(request)
        revision, blob, text = await self._changes.version(key.path)
        if not blob and key not in self._control.published.state.served:
            raise _unknown(key)
        tag = {"ETag": f'"{blob}"', "Cache-Control": "no-cache"} if blob else {}
        if blob and is_known(if_none_match(request), blob):
            return Response(status_code=304, headers=tag)
        last = next(iter(await self._changes.history(key.path, 1)), None)
        return json_answer(
            object_view(self._control, key, revision=revision, blob=blob, text=text, last=last), headers=tag
        )

    async def object_history(self, request: Request) -> Response:
        key = self._readable(request)
        found = await self._changes.history(key.path, limit_of(request))
        if not found:
            raise _unknown(key)
        return json_answer(History(path=key.path, commits=found))

    # --- writing ------------------------------------------------------------------------------------------------

    async def put_object(self, request: Request) -> Response:
        caller, key = self._writable(request)
        media = _media_of(request, "application/json", YAML_TYPE)
        body = await request.body()
        if (before := await answered_before(self._changes, request, caller)) is not None:
            return before
        revision, blob, text = await self._changes.version(key.path)
        _require_seen(request, blob, revision)
        if media == YAML_TYPE:
            wanted = _text_of(body)
        else:
            wanted = _edited(lambda: put_document(key.path, text, _document_of(body)))
        return await self._submit(request, caller, key, blob, wanted)

    async def patch_object(self, request: Request) -> Response:
        caller, key = self._writable(request)
        _media_of(request, MERGE_PATCH)
        patch = _document_of(await request.body())
        if (before := await answered_before(self._changes, request, caller)) is not None:
            return before
        revision, blob, text = await self._changes.version(key.path)
        if not blob:
            raise _unknown(key)
        require_match(if_match(request), blob, revision=revision)
        wanted = _edited(lambda: patch_document(key.path, text or "", patch))
        return await self._submit(request, caller, key, blob, wanted)

    async def delete_object(self, request: Request) -> Response:
        caller, key = self._writable(request)
        if (before := await answered_before(self._changes, request, caller)) is not None:
            return before
        revision, blob, _ = await self._changes.version(key.path)
        if not blob:
            raise _unknown(key)
        _require_seen(request, blob, revision)
        return await self._submit(request, caller, key, blob, None)

    async def _submit(
        self, request: Request, caller: Identity, key: ObjectKey, blob: str, text: str | None
    ) -> Response:
        if text is not None and len(text) > MAX_FILE:
            raise Refused(f"An object has at most {MAX_FILE} characters.", status=413, code="content-too-large")
        change = Change(
            edits=(FileEdit(path=key.path, text=text, expected=blob),),
            message=request.query_params.get("message", "")[:4000],
            proposal=_flag(request, "proposal"),
            accept_plain=_flag(request, "acceptPlain") or False,
        )
        return answered(await self._changes.submit(change, caller, key=await idempotency_key(request)))

    # --- who ----------------------------------------------------------------------------------------------------

    def _readable(self, request: Request) -> ObjectKey:
        caller, key = self._caller(request), key_of_path(str(request.path_params["path"]))
        caller.require("read", key.team if key is not None and key.kind in TEAM_KINDS else None)
        if key is None:
            raise Refused("There is no such object.", status=404, code="unknown-object")
        return key

    def _writable(self, request: Request) -> tuple[Identity, ObjectKey]:
        caller, key = self._caller(request), key_of_path(str(request.path_params["path"]))
        if key is None:
            caller.require("write")
            hint = "Objects lie at paths such as routes/shop/web.yaml."
            raise Refused("No object belongs at this path.", status=422, code="not-an-object", hint=hint)
        require_writable(caller, [key])
        return caller, key

    def _caller(self, request: Request) -> Identity:
        return self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())


def _unknown(key: ObjectKey) -> Refused:
    return Refused(f"There is no {key.path}.", status=404, code="unknown-object")


def _require_seen(request: Request, blob: str, revision: str) -> None:
    """Refuse to overwrite what the caller has not seen.

    Raises:
        Refused: 412 ``changed-since``, ``exists``; 428 ``precondition-required``.
    """
    match, none_match = if_match(request), if_none_match(request)
    if blob and is_known(none_match, blob):
        text = "There is such an object already."
        raise Refused(text, status=412, code="exists", hint="Read it, and send its ETag as If-Match.")
    if blob and match is None and none_match is None:
        text = "There is such an object, and the request does not say which version of it was seen."
        hint = "Send the ETag that GET answers as If-Match, or * to write over whatever is there."
        raise Refused(text, status=428, code="precondition-required", hint=hint)
    require_match(match, blob, revision=revision)


def _media_of(request: Request, *known: str) -> str:
    """Return which type the body has.

    Raises:
        Refused: 415.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in known:
        text = f"The body must be {' or '.join(known)}."
        raise Refused(text, status=415, code="unsupported-media-type")
    return media


def _text_of(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refused("The body is no UTF-8.", status=422, code="invalid-text") from None


def _document_of(body: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Refused: 422 ``invalid-request``.
    """
    try:
        document = json.loads(body, parse_constant=_no_number)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused("The body is no JSON.", status=422, code="invalid-request") from None
    if not isinstance(document, dict):
        raise Refused("The body must be one JSON object.", status=422, code="invalid-request")
    return document


def _no_number(name: str) -> float:
    raise ValueError(name)


def _edited(edit: Callable[[], str]) -> str:
    try:
        return edit()
    except EditConflict as conflict:
        raise Refused(str(conflict), status=422, code="not-editable") from None


def _flag(request: Request, name: str) -> bool | None:
    """Return a yes or no of the query, None where it says nothing.

    Raises:
        Refused: 400 ``bad-query``.
    """
    text = request.query_params.get(name)
    if text not in (None, "true", "false"):
        raise Refused(f"{name} must be true or false.", status=400, code="bad-query")
    return None if text is None else text == "true"
