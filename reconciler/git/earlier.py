"""Requests that an earlier push has brought to the branch already, found by their trailer.

A push may have succeeded although nobody here knows: the process ended before it could take note, or the answer was
lost. What the request wrote may be gone again, taken back by a person; the commit that wrote it stays in the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reconciler.desired.edits import CommitRequest
from reconciler.git.commits import LOG_FORMAT, parse_log
from reconciler.git.fast_import import REQUEST_TRAILER
from reconciler.git.keeper import damaged
from reconciler.git.mirror import Mirror
from reconciler.git.parsing import Unreadable

CLOCK_SKEW_SECONDS: Final = 30 * 86400
"""git's walk ends at a commit that is older than asked for. Ours carry the time of their request; those on top of them
carry the clocks of people, which may be slow by as much."""


async def earlier(mirror: Mirror, tip: str, requests: Sequence[CommitRequest]) -> dict[str, str]:
    """Return request id → commit, for each request with a commit in the history of ``tip``, which must be here.

    Raises:
        Rejected, Transient: as :meth:`Mirror.commits_between`.
    """
    if not requests:
        return {}
    since = min(int(request.time.timestamp()) for request in requests) - CLOCK_SKEW_SECONDS
    named = (f"--grep={REQUEST_TRAILER}: {request.id}" for request in requests)
    options = ("-z", f"--format={LOG_FORMAT}", f"--max-age={max(0, since)}", "--fixed-strings", *named)
    command = mirror.keeper.command("log", *options, "--end-of-options", tip)
    finished = await mirror.keeper.local(command, (tip,))
    try:
        commits = parse_log(finished.stdout)
    except Unreadable as error:
        raise damaged(str(error)) from None
    wanted = {request.id for request in requests}
    found = ((commit.trailers.get(REQUEST_TRAILER, ""), commit.revision) for commit in commits)
    return {request_id: revision for request_id, revision in found if request_id in wanted}
