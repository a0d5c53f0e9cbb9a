"""From a form to a commit: what a change would do is shown on a page of its own, and the same form then commits it.

A form posts to the page that made it, with ``do`` saying how far to go: ``check`` draws ``change.html.j2``, whose
hidden fields carry the whole form; ``commit`` writes. What is refused (412: the file was changed) is drawn there too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.service import Changes
from reconciler.errors import Refused
from reconciler.pki.authenticator import Identity
from reconciler.web.pages.kit import Form, Site
from schemas.changes_api import Change, ChangeAnswer, ChangeCheck, FileEdit
from schemas.objects import key_of_path
from schemas.problem import Problem

MOST_LINES: Final = 2000
"""Of a diff that is drawn."""
_NOTICES: Final[Mapping[str, str]] = {
    "committed": "Committed: {message}",
    "pending": "It is kept on disk and will be committed as soon as the remote takes it.",
    "proposed": "Proposed on the branch {branch}; it waits to be merged.",
    "nothing": "Nothing had to be changed.",
    "conflicted": "It could not be committed: {message}",
}


class Line(NamedTuple):
    """One line of a diff. ``kind``: ``add``, ``del``, ``hunk`` or nothing."""

    kind: str
    text: str


class FileView(NamedTuple):
    path: str
    action: str
    text: str
    diff: tuple[Line, ...]
    truncated: bool


class Changing:
    """What every page that changes something is made with."""

    def __init__(self, site: Site, changes: Changes) -> None:
        self._site = site
        self.changes = changes

    async def preview(
        self, request: Request, identity: Identity, change: Change, form: Form, *, title: str, back: str
    ) -> Response:
        """Draw what a change would do. ``back``: where the form is, to go on editing."""
        try:
            check = await self.changes.check(change, identity)
        except Refused as refused:
            return await self.refused(request, identity, refused, form, title=title, back=back)
        files = [await self._file(one.path, one.action, one.text) for one in check.files]
        return await self._site.render(
            request,
            identity,
            "change.html.j2",
            title=title,
            back=back,
            check=check,
            refused=None,
            files=files,
            lines=quoted(check),
            fields={name: value for name, value in form.items() if name not in ("do", "message")},
            message=form.get("message") or check.message,
            newest="",
        )

    async def _file(self, path: str, action: str, text: str | None) -> FileView:
        before = await self.changes.text(path) or ""
        diff = list(diff_of(before, text or ""))
        return FileView(path, action, text or "", tuple(diff[:MOST_LINES]), len(diff) > MOST_LINES)

    async def commit(
        self, request: Request, identity: Identity, change: Change, form: Form, *, title: str, back: str
    ) -> Response:
        """Have a change committed and lead to where it can be followed."""
        try:
            answer = await self.changes.submit(change, identity)
        except Refused as refused:
            return await self.refused(request, identity, refused, form, title=title, back=back)
        return self.answered(answer, back)

    def answered(self, answer: ChangeAnswer, back: str) -> Response:
        """Lead on after a change."""
        notice = _NOTICES[answer.state].format(message=answer.message, branch=answer.branch)
        if answer.pull_request:
            notice = f"{notice} {answer.pull_request}"
        if answer.state == "committed" and answer.revision:
            return self._site.redirect(f"/revisions/{answer.revision}", notice)
        return self._site.redirect("/revisions" if answer.state in ("pending", "proposed") else back, notice)

    async def refused(
        self, request: Request, identity: Identity, refused: Refused, form: Form, *, title: str, back: str
    ) -> Response:
        """Draw why a change cannot be, with what the person wrote kept."""
        path = form.get("path", "")
        newest = await self.changes.text(path) if refused.status == 412 and key_of_path(path) is not None else ""
        return await self._site.render(
            request,
            identity,
            "change.html.j2",
            status=refused.status,
            title=title,
            back=back,
            check=None,
            refused=refused,
            files=(),
            lines={},
            fields={name: value for name, value in form.items() if name not in ("do", "message")},
            message=form.get("message", ""),
            newest=tuple(diff_of(newest, form.get("text", ""))) if newest else (),
        )


def change_of(path: str, text: str | None, *, message: str, expected: str | None = None, base: str = "") -> Change:
    """Return the change of one file that a form asks for.

    Raises:
        Refused: 422 ``bad-form``: a field holds what no page of ours would send, or more than there is room for.
    """
    try:
        return Change(edits=(FileEdit(path=path, text=text, expected=expected),), message=message, base=base)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False)[0]["loc"][-1])
        said = {"message": "The commit message is too long.", "text": "The text is too long."}
        hint = "Go back, where what you wrote still is, and change that."
        why = said.get(name, f"The form's field {name} cannot be read.")
        raise Refused(why, status=422, code="bad-form", hint=hint) from None


def diff_of(before: str, after: str, context: int = 3) -> Iterator[Line]:
    """Yield a unified diff, without the names of files."""
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=context)
    for number, line in enumerate(found):
        if number < 2:  # names of files
            continue
        kind = {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "")
        yield Line(kind, line)


def quoted(check: ChangeCheck) -> dict[tuple[str, int], str]:
    """Return the text at the lines of problems."""
    texts = {one.path: (one.text or "").splitlines() for one in check.files}
    return at_lines(check.problems, texts)


def at_lines(problems: Sequence[Problem], texts: Mapping[str, Sequence[str]]) -> dict[tuple[str, int], str]:
    """Return the text at the lines of problems; ``texts``: path → lines."""
    return {
        (one.file, one.line): texts[one.file][one.line - 1]
        for one in problems
        if one.file in texts and 0 < one.line <= len(texts[one.file])
    }
