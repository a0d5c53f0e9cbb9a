"""Which revision may be looked at: history that only grows, signatures where they are asked for, and what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.desired.parse import parse_file
from reconciler.desired.snapshot import REGULAR_FILE, Change, File
from reconciler.desired.state import files_of
from reconciler.errors import Rejected, Transient
from reconciler.git.signatures import SigningKeys
from reconciler.steps.passing import Pass, Published
from reconciler.steps.source import MAX_COMMITS, SignatureMode, Source, rewrite_checksum
from tests.support.documents import agent, blob_of, fleet, route, settled, state_of
from tests.support.memory_mirror import MemoryMirror

START = {"fleet.yaml": fleet(), "agents/vps-1.yaml": agent("vps-1"), "routes/shop/web.yaml": route("web")}
NEW = "routes/shop/new.yaml"
NO_KEYS = SigningKeys()
ADDED = (Change(NEW, File(REGULAR_FILE, blob_of(route("new")))),)


def published(mirror: MemoryMirror) -> Published:
    """Push the first commit, and say that it is in service."""
    revision = mirror.push(START)
    return Published(1, revision, replace(state_of(dict(START)), revision=revision))


def taken(
    mirror: MemoryMirror,
    base: Published,
    mode: SignatureMode = "none",
    *,
    approved: Iterable[str] = (),
    revision: str = "",
    own: Mapping[str, tuple[str, ...]] | None = None,
    keys: SigningKeys = NO_KEYS,
) -> Pass:
    """Let the source step judge the newest commit."""

    async def run() -> Pass:
        async def is_approved(checksum: str) -> bool:
            return checksum in set(approved)

        async def paths_of_own(commit: str) -> tuple[str, ...] | None:
            return (own or {}).get(commit)

        source = Source(mirror, keys, is_approved, paths_of_own)
        this = Pass(revision or mirror.head, base)
        await source.fetch(this)
        await source.accept(this, mode)
        if base.state.fleet is None and mode == "none":
            blobs = [(one.path, one.file.blob) for one in this.changes if one.file is not None]
            this.news = tuple(parse_file(path, blob, mirror.blobs[blob]) for path, blob in blobs if path in START)
            await source.check_first(this)
        return this

    return asyncio.run(run())


def test_the_first_revision_brings_every_file() -> None:
    """With nothing published, all of its files are changes, and there is no history that it could have rewritten."""
    mirror = MemoryMirror()
    mirror.push({**START, "README.md": b"hello"}, subject="Start")
    this = taken(mirror, Published())
    assert [change.path for change in this.changes] == sorted([*START, "README.md"])
    assert (this.commit.author, this.commit.subject, this.rewritten) == ("Ada", "Start", False)


def test_the_next_revision_brings_what_differs() -> None:
    """Git's own difference, and for a direct child nobody asks whether it descends."""
    mirror = MemoryMirror()
    base = published(mirror)
    mirror.push({NEW: route("new"), "agents/vps-1.yaml": None})
    assert taken(mirror, base).changes == (Change("agents/vps-1.yaml", None), *ADDED)
    assert "descends" not in mirror.asked
    mirror.push({"note.txt": b"1"})
    mirror.push({"note.txt": b"2"})
    assert NEW in {change.path for change in taken(mirror, base).changes}
    assert "descends" in mirror.asked


def test_a_merge_that_holds_what_is_published_is_no_rewrite() -> None:
    """What is published may come in as the second parent."""
    mirror = MemoryMirror()
    base = published(mirror)
    other = mirror.push(START, onto="")
    mirror.push({NEW: route("new")}, onto=other, merging=base.revision)
    assert taken(mirror, base).changes == ADDED


def test_a_rewritten_history_waits_for_its_own_approval() -> None:
    """Held with the checksum of exactly this step; another step's approval does not let it in."""
    mirror = MemoryMirror()
    base = published(mirror)
    rewritten = mirror.push({**START, NEW: route("new")}, onto="")
    wrong = rewrite_checksum(rewritten, base.revision)
    with pytest.raises(Rejected) as held:
        taken(mirror, base, approved=[wrong, ""])
    assert (held.value.reason, held.value.approve) == ("HistoryRewritten", f"rewrite:{base.revision}..{rewritten}")
    assert "cloudlunacy" not in str(held.value), "how it is called is known only to who calls it"
    assert base.revision[:12] in held.value.hint
    assert taken(mirror, base, approved=[held.value.approve]).changes == ADDED


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_an_approved_rewrite_is_compared_with_what_is_in_service(is_forgotten: bool) -> None:
    """Quarantined files count with their newest version, whether or not git still has the old commit."""
    mirror = MemoryMirror()
    base = published(mirror)
    broken = settled(base.state, {"routes/shop/web.yaml": b"a: [", NEW: b"b: ["}, base.revision).state
    base = Published(1, base.revision, broken)
    rewritten = mirror.push({**START, "routes/shop/web.yaml": b"a: ["}, onto="")
    mirror.forgotten = {base.revision} if is_forgotten else set()
    this = taken(mirror, base, approved=[rewrite_checksum(base.revision, rewritten)])
    assert this.changes == (Change(NEW, None),)
    assert files_of(broken)["routes/shop/web.yaml"].blob == blob_of(b"a: [")


def test_a_remote_that_is_away_is_no_verdict() -> None:
    """What cannot be fetched now is tried again, whatever it is."""
    mirror = MemoryMirror()
    base = published(mirror)
    mirror.unreachable.add(mirror.push({NEW: None}))
    with pytest.raises(Transient):
        taken(mirror, base)


# --- signatures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "signed", "good"),
    [
        ("none", [], True),
        ("head", [], False),
        ("head", ["first"], False),
        ("head", ["second"], True),
        ("strict", ["second"], False),
        ("strict", ["first"], False),
        ("strict", ["first", "second"], True),
    ],
)
def test_signatures_are_asked_for_as_the_fleet_says(mode: SignatureMode, signed: list[str], good: bool) -> None:
    """none: nobody asks; head: the newest commit; strict: each one since the published revision."""
    mirror = MemoryMirror()
    base = published(mirror)
    commits = {"first": mirror.push({"note.txt": b"1"}), "second": mirror.push({NEW: route("new")})}
    mirror.signed = {commits[name] for name in signed}
    if good:
        assert NEW in {change.path for change in taken(mirror, base, mode).changes}
        return
    with pytest.raises(Rejected) as refused:
        taken(mirror, base, mode)
    assert (refused.value.reason, refused.value.approve) == ("SignatureMissing", "")
    assert "has no good signature: it is not signed" in str(refused.value)


def test_without_the_mode_no_signature_is_looked_at() -> None:
    """Verifying takes time that nobody asked for."""
    mirror = MemoryMirror()
    mirror.push(START)
    taken(mirror, Published())
    assert not [question for question in mirror.asked if question.startswith("signature")]


def test_who_signs_the_first_revision_vouches_for_what_is_below() -> None:
    """In mode strict there is nothing to start from, so only the newest commit is verified."""
    mirror = MemoryMirror()
    mirror.push({"note.txt": b"1"})
    mirror.signed = {mirror.push(START)}
    assert taken(mirror, Published(), "strict").changes
    assert [question for question in mirror.asked if question.startswith("signature")] == ["signature 2"]


def test_too_many_commits_to_verify_are_refused() -> None:
    """Above the limit nothing is verified and nothing let in, with what to do instead."""
    mirror = MemoryMirror()
    base = published(mirror)
    for number in range(MAX_COMMITS + 1):
        mirror.signed.add(mirror.push({"note.txt": str(number).encode()}))
    with pytest.raises(Rejected, match="Push in smaller steps") as refused:
        taken(mirror, base, "strict")
    assert refused.value.reason == "SignatureMissing"


def test_an_approved_rewrite_must_be_signed_as_well() -> None:
    """An approval says that the history may change, not who wrote it."""
    mirror = MemoryMirror()
    base = published(mirror)
    rewritten = mirror.push({NEW: route("new")}, onto="")
    approved = [rewrite_checksum(base.revision, rewritten)]
    with pytest.raises(Rejected, match="no good signature"):
        taken(mirror, base, "head", approved=approved)
    mirror.signed = {rewritten}
    assert taken(mirror, base, "head", approved=approved).rewritten


@pytest.mark.parametrize(
    ("mode", "keys", "wanted"),
    [
        ("none", SigningKeys(), False),
        ("none", SigningKeys(allowed_signers=Path("allowed")), True),
        ("head", SigningKeys(), True),
        ("strict", SigningKeys(), True),
    ],
)
def test_the_first_revision_is_signed_as_its_own_fleet_asks(mode: str, keys: SigningKeys, wanted: bool) -> None:
    """Before any fleet is in service the revision's own counts; where keys were given, it is signed in any case."""
    mirror = MemoryMirror()
    revision = mirror.push({**START, "fleet.yaml": fleet(signatures={"mode": mode})})
    if wanted:
        with pytest.raises(Rejected, match="no good signature") as refused:
            taken(mirror, Published(), keys=keys)
        assert refused.value.reason == "SignatureMissing"
        mirror.signed = {revision}
    assert taken(mirror, Published(), keys=keys).changes


OWN = "agents/vps-2.yaml"


@pytest.mark.parametrize("mode", ["head", "strict"])
def test_own_commits_need_no_signature(mode: SignatureMode) -> None:
    """Enrolments on what is published, and between signed commits, are let in."""
    mirror = MemoryMirror()
    base = published(mirror)
    own = {mirror.push({OWN: agent("vps-2")}): (OWN,)}
    assert taken(mirror, base, mode, own=own).changes
    mirror.signed = {mirror.push({NEW: route("new")})}
    own[mirror.push({OWN: None})] = (OWN,)
    assert taken(mirror, base, mode, own=own).changes == ADDED


@pytest.mark.parametrize("mode", ["head", "strict"])
def test_an_own_commit_vouches_for_nothing_below_it(mode: SignatureMode) -> None:
    """Whoever pushes without a signature is not let in by an enrolment on top."""
    mirror = MemoryMirror()
    base = published(mirror)
    unsigned = mirror.push({NEW: route("new")})
    own = {mirror.push({OWN: agent("vps-2")}): (OWN,)}
    with pytest.raises(Rejected, match=unsigned[:12]):
        taken(mirror, base, mode, own=own)


@pytest.mark.parametrize("mode", ["head", "strict"])
@pytest.mark.parametrize("changed", [{NEW: None}, {OWN: None, NEW: None}, {}])
def test_an_own_commit_changes_its_one_file(mode: SignatureMode, changed: dict[str, None]) -> None:
    """What is on record counts for that file: a commit that changes others, more, or nothing has to be signed."""
    mirror = MemoryMirror()
    mirror.push({NEW: route("new"), OWN: agent("vps-2")}, onto="")
    base = published(mirror)
    own = {mirror.push(dict(changed)): (OWN,)}
    with pytest.raises(Rejected, match="no good signature"):
        taken(mirror, base, mode, own=own)


@pytest.mark.parametrize("mode", ["head", "strict"])
def test_an_own_merge_has_to_be_signed(mode: SignatureMode) -> None:
    """The control plane makes no merges."""
    mirror = MemoryMirror()
    base = published(mirror)
    other = mirror.push({OWN: agent("vps-2")}, onto=base.revision)
    own = {mirror.push({OWN: agent("vps-2")}, onto=base.revision, merging=other): (OWN,), other: (OWN,)}
    with pytest.raises(Rejected, match="no good signature"):
        taken(mirror, base, mode, own=own)
