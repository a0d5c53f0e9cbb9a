"""Which revision is meant by a name, for the API and the pages alike."""

from __future__ import annotations

import re
from typing import Final, Protocol

from reconciler.errors import Refused
from reconciler.status import Tracker
from schemas.status import RevisionStatus

_REVISION: Final = re.compile(r"[0-9a-f]{7,64}")


class Superseding(Protocol):
    """:class:`reconciler.web.api.Control`."""

    async def superseding(self, revision: str) -> str | None: ...


async def status_of(name: str, tracker: Tracker, control: Superseding) -> RevisionStatus:
    """Return the record of a revision; of one that nobody looked at by itself, that of which it became part.

    Raises:
        Refused: 404 ``unknown-revision``.
    """
    if name == "newest":
        status = await tracker.newest_status()
    elif not _REVISION.fullmatch(name):
        hint = "Give at least 7 digits of a commit, or newest."
        raise Refused("This is no revision.", status=404, code="unknown-revision", hint=hint)
    else:
        status = await tracker.status(name)
        if status is None and (newer := await control.superseding(name)) is not None:
            status = await tracker.status(newer)
    if status is None:
        hint = "Was it pushed to the branch that the control plane follows?"
        raise Refused("This revision was not looked at.", status=404, code="unknown-revision", hint=hint)
    return status
