"""The file of an object: ``/objects/{path}``. Its text, problems at their lines, its history, and how to change it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.service import Changes
from reconciler.desired.state import State
from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity, Scope
from reconciler.steps.passing import Published
from reconciler.web.endpoint import Endpoint
from reconciler.web.object_views import ObjectState, state_of
from reconciler.web.pages.changing import Changing, change_of
from reconciler.web.pages.kit import Form, Site
from schemas.changes_api import MAX_FILE, Change
from schemas.objects import ObjectKey, key_of_path
from schemas.problem import Problem

COMMITS: Final = 30
MOST_REFERENCES: Final = 100
_SEALED: Final = re.compile(r"-----BEGIN AGE.*?(?:END AGE ENCRYPTED FILE-----|\Z)", re.DOTALL)
_STATES: Final[Mapping[ObjectState, str]] = {
    "InService": "It is in service.",
    "LastGood": "The newest version has problems; the last good one is in service.",
    "Quarantined": "It has problems and is kept out of service.",
    "Pending": "It is not in service yet.",
    "Gone": "There is no such file any more.",
}


class Plane(Protocol):
    """:class:`reconciler.app.building.Parts`."""

    @property
    def published(self) -> Published: ...
    def problems(self) -> tuple[Problem, ...]: ...


class Reference(NamedTuple):
    """An object that names this one, or that this one names."""

    title: str
    path: str
    known: bool


class References(NamedTuple):
    names: tuple[Reference, ...]
    named_by: tuple[Reference, ...]
    left_out: int


class ObjectPages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, plane: Plane, changes: Changes) -> None:
        self._site = site
        self._plane = plane
        self._changes = changes
        self._changing = Changing(site, changes)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        path = "/objects/{path:path}"
        return (
            Endpoint("GET", path, "The file of an object", self.show, "read", page=True),
            Endpoint("POST", path, "Change the file of an object", self.change, "write", page=True),
        )

    async def show(self, request: Request) -> Response:
        """Draw the file; with ``?edit=1`` in a field to change it."""
        key = _key(request)
        identity = self._site.caller(request, team=key.team or None)
        text = await self._changes.text(key.path)
        history = await self._changes.history(key.path, COMMITS)
        wants_edit = "edit" in request.query_params
        if text is None and not history and not wants_edit:
            raise Refused("There is no such file in the state repo.", status=404, code="unknown-object")
        may_write = identity.may(scope_of(key), key.team or None)
        may_edit = may_write and key.kind != "Secret"
        template = "object_edit.html.j2" if wants_edit and may_edit else "object.html.j2"
        state = self._plane.published.state
        problems = tuple(one for one in self._plane.problems() if one.file == key.path)
        return await self._site.render(
            request,
            identity,
            template,
            key=key,
            text=text,
            blob=blob_of(text),
            lines=tuple(shown(key, text or "").splitlines()),
            problems=problems,
            at_line=by_line(problems),
            state=standing_of(state, key, blob_of(text), problems),
            references=references(state, key),
            history=history,
            may_write=may_write,
            may_edit=may_edit,
            host_pages=hosts(state, key),
        )

    async def change(self, request: Request) -> Response:
        """Check, commit or delete. Every step but the last writes nothing."""
        key = _key(request)
        identity = self._site.caller(request, scope_of(key), key.team or None)  # first: the form may be large
        form = await self._site.form(request)
        is_deletion = form.get("what") == "delete"
        text = None if is_deletion else form.get("text", "")
        if text is not None and len(text) > MAX_FILE:
            raise Refused(f"A file has at most {MAX_FILE} characters.", status=413, code="too-long")
        form = Form([*form.items(), ("path", key.path)])
        change = change_of(key.path, text, message=form.get("message", ""), expected=form.get("blob", ""))
        return await self._step(request, identity, change, form, key)

    async def _step(self, request: Request, identity: Identity, change: Change, form: Form, key: ObjectKey) -> Response:
        act = self._changing.commit if form.get("do") == "commit" else self._changing.preview
        title = f"Delete {key.path}" if form.get("what") == "delete" else f"Change {key.path}"
        edit = "" if form.get("what") == "delete" else "?edit=1"
        return await act(request, identity, change, form, title=title, back=f"/objects/{quote(key.path)}{edit}")


def scope_of(key: ObjectKey) -> Scope:
    """Return what changing an object needs: the fleet's file says who may what."""
    return "admin" if key.kind == "Fleet" else "write"


def shown(key: ObjectKey, text: str) -> str:
    """Return what a page shows of a file: of a secret all but what is sealed, line by line."""
    return _SEALED.sub(lambda found: re.sub(r"\S[^\n]*", "(sealed)", found[0]), text) if key.kind == "Secret" else text


def blob_of(text: str | None) -> str:
    """Return git's id of a file's content, empty where there is none."""
    if text is None:
        return ""
    content = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def by_line(problems: Sequence[Problem]) -> dict[int, list[Problem]]:
    """Return problems by their line."""
    found: dict[int, list[Problem]] = {}
    for one in problems:
        found.setdefault(one.line, []).append(one)
    return found


def standing_of(state: State, key: ObjectKey, blob: str, problems: Sequence[Problem]) -> tuple[ObjectState, str]:
    """Return the state of an object as a word, as the API says it, and as a sentence. ``blob``: of its newest file."""
    served = state.served.get(key)
    word = state_of(served, blob, problems)
    if word == "Gone" and served is not None:
        return word, "It is deleted, and still in service."
    if word == "Pending" and served is not None:
        return word, "Its newest version is not in service yet; the one before is."
    return word, _STATES[word]


def references(state: State, key: ObjectKey) -> References:
    """Return what an object in service names, and what names it."""
    served = state.served.get(key)
    names = sorted(set(served.references)) if served is not None else []
    by = sorted(state.referrers.get(key, ()))
    left_out = max(0, len(names) - MOST_REFERENCES) + max(0, len(by) - MOST_REFERENCES)
    return References(
        tuple(_reference(state, one) for one in names[:MOST_REFERENCES]),
        tuple(_reference(state, one) for one in by[:MOST_REFERENCES]),
        left_out,
    )


def _reference(state: State, key: ObjectKey) -> Reference:
    return Reference(str(key), key.path, key in state.served)


def hosts(state: State, key: ObjectKey) -> tuple[str, ...]:
    """Return the hosts of a route in service."""
    served = state.served.get(key)
    if served is None or key.kind != "Route":
        return ()
    return tuple(dict.fromkeys(claim.pattern for claim in served.claims))[:20]


def _key(request: Request) -> ObjectKey:
    key = key_of_path(str(request.path_params["path"]))
    if key is None:
        raise Refused(
            "No object can lie there.", status=404, code="not-an-object", hint="Such as routes/shop/web.yaml."
        )
    return key
