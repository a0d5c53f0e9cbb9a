"""What git's last words mean, and which error they become. Pure; words are cleaned and in English (``LC_ALL``).

git has no codes for these: the exit status is 128 for nearly everything.
"""

from __future__ import annotations

import re
from typing import Final

from reconciler.errors import CloudLunacyError, Rejected, Transient
from reconciler.git.cleaning import one_line
from reconciler.git.remote import Remote

MAX_SHOWN: Final = 600

# The mirror's own files are wrong. Rebuilding is done beside and swapped in only on success, so a word too many in this
# list costs a download and nothing else.
_DAMAGE: Final = re.compile(
    r"(?i)corrupt|inflate:|garbage|hash mismatch|mmap failed|is too small|unresolved deltas"
    r"|not a git repository|bad config|unknown repository extension"
    r"|unable to (?:read|open|find|map|parse|unpack)|cannot open|could not read [0-9a-f]{40}"
    r"|missing (?:blob|tree|commit)|bad (?:object|tree|ref|sha1|pack header|signature)"
    r"|object file .* is empty|object .* not found|packfile|pack file|index file|invalid index"
    r"|broken (?:link|ref)|reference broken|invalid sha1 pointer|not (?:a|point to a) valid (?:ref|object)"
    r"|failed to (?:read|traverse|parse)|did not send all necessary objects|remote did not send"
)
_LOCKED: Final = re.compile(r"(?i)\.lock': File exists|unable to (?:create|lock) .*\.lock|cannot lock ref")
_NO_SPACE: Final = re.compile(r"(?i)no space left|disk quota exceeded|read-only file system")
_FSCK: Final = re.compile(r"(?i)fsck error|error: object [0-9a-f]{40,64}: \w+:|object fails fsck|fsck failed")
_DENIED: Final = re.compile(
    r"(?i)could not read (?:username|password)|authentication failed|permission denied \(|returned error: 40[13]"
    r"|host key verification failed|access denied|invalid credentials"
)
_GONE: Final = re.compile(r"(?i)not our ref|upload-pack: not our|does not allow request for unadvertised")
_REDIRECTED: Final = re.compile(r"(?i)unable to update url base from redirection|returned error: 30[12378]")


def is_damage(words: str) -> bool:
    """Say whether the words complain about the mirror itself."""
    return bool(_DAMAGE.search(words)) and not _NO_SPACE.search(words)


def is_stale_lock(words: str) -> bool:
    """Say whether a lock of a process that is gone stands in the way."""
    return bool(_LOCKED.search(words))


def is_refused_content(words: str) -> bool:
    """Say whether what the remote sends fails git's own checks."""
    return bool(_FSCK.search(words))


def too_large(remote: Remote, max_pack_bytes: int) -> Rejected:
    """Return the error for a download that was cut at the quota."""
    return Rejected(
        f"{remote} sent more than the {max_pack_bytes / 2**20:.0f} MiB that a fetch may bring.",
        reason="FetchRefused",
        hint="Remove large files from the repository's history.",
    )


def remote_failure(remote: Remote, doing: str, words: str) -> CloudLunacyError:
    """Return the error for a process that talked to ``remote`` and failed."""
    shown = shortened(words)
    if _FSCK.search(words):
        return Rejected(f"{remote} sent objects that fail git's checks: {shown}", reason="FetchRefused")
    if _NO_SPACE.search(words):
        return Transient(f"The mirror cannot be written: {shown}", reason="DiskFull", hint="Make room on the disk.")
    if _REDIRECTED.search(words):
        return Transient(f"{remote} answers with a redirect, which is not followed.", reason="Redirected",
                         hint="Give the final URL in the settings.")  # fmt: skip
    if _DENIED.search(words):
        return Transient(f"{remote} refused access while {doing}: {shown}", reason="AuthenticationFailed",
                         hint="Check user name, token, key and known hosts in the settings.")  # fmt: skip
    if _GONE.search(words):
        return Transient(f"{remote} no longer has the commit: {shown}", reason="RemoteMoved", retry_after=0.0)
    return Transient(f"{remote} failed while {doing}: {shown or 'no reason given'}", reason="RemoteUnavailable")


def is_no_answer(reason: str) -> bool:
    """Say whether a push ended without the remote's verdict: it may have taken the commits or not."""
    return bool(re.search(r"(?i)expecting report|remote failed to report|unpacker? error|hung up", reason))


def remote_words(words: str) -> str:
    """Return what the remote itself said, in one line."""
    lines = (line.removeprefix("remote:") for line in words.splitlines() if line.startswith("remote:"))
    return shortened("\n".join(lines))


def shortened(words: str) -> str:
    """Return git's words in one line for a message."""
    line = one_line(words)
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]} …"
