"""What git's last words mean."""

from __future__ import annotations

import pytest

from reconciler.errors import Rejected, Transient
from reconciler.git.failures import is_damage, is_stale_lock, remote_failure, remote_words
from reconciler.git.remote import Remote

REMOTE = Remote.parse("/srv/state.git")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("fatal: could not read Username for 'https://x': terminal prompts disabled", "AuthenticationFailed"),
        ("git@x: Permission denied (publickey).", "AuthenticationFailed"),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 403", "AuthenticationFailed"),
        ("Host key verification failed.", "AuthenticationFailed"),
        ("fatal: unable to update url base from redirection:", "Redirected"),
        ("error: file write error: No space left on device", "DiskFull"),
        ("fatal: remote error: upload-pack: not our ref 0123", "RemoteMoved"),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "RemoteUnavailable"),
        ("", "RemoteUnavailable"),
    ],
)
def test_transient(words: str, reason: str) -> None:
    """What may pass by itself, or by the operator, is tried again."""
    failure = remote_failure(REMOTE, "fetching", words)
    assert isinstance(failure, Transient)
    assert failure.reason == reason


def test_rejected() -> None:
    """Objects that fail git's checks need a person."""
    failure = remote_failure(
        REMOTE, "fetching", "error: object 0123: hasDotgit: contains '.git'\nfatal: fsck error in packed object"
    )
    assert isinstance(failure, Rejected)
    assert failure.reason == "FetchRefused"


@pytest.mark.parametrize(
    "words",
    [
        "fatal: not a git repository: '/x'",
        "error: inflate: data stream error (incorrect header check)",
        "error: object file objects/ab/cd is empty",
        "fatal: bad object 0123",
        "fatal: pack has 3 unresolved deltas",
        "fatal: bad config line 1 in file /x/config",
        "error: packfile /x.pack does not match index",
    ],
)
def test_damage(words: str) -> None:
    """Complaints about the mirror's own files are damage."""
    assert is_damage(words)


@pytest.mark.parametrize(
    "words",
    [
        "fatal: unable to access 'https://x/': Failed to connect to x port 443",
        "fatal: Could not read from remote repository.",
        "fatal: the remote end hung up unexpectedly",
        "error: unable to write file: No space left on device: inflate: x",
    ],
)
def test_no_damage(words: str) -> None:
    """A remote that is away and a full disk are no damage."""
    assert not is_damage(words)


def test_stale_lock() -> None:
    """A lock in the way is told from other failures."""
    assert is_stale_lock("fatal: Unable to create '/x/packed-refs.lock': File exists.")
    assert not is_stale_lock("fatal: bad object")


def test_words_of_the_remote() -> None:
    """Only what the remote said is repeated as its words."""
    assert remote_words("remote: no \nremote:  entry\nerror: failed to push") == "no entry"
