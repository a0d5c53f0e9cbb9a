"""Signature modes on a running control plane: who signs is let in, everything else waits for a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import documents
from tests.support.fleet import Installation, installation, start_files, web
from tests.support.git_repos import git
from tests.support.ssh_server import make_key

EMAIL = "dev@example.test"


def sign(one: Installation, key: Path, revision: str) -> str:
    """Make the commit again, signed, in its place."""
    config = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={key}")
    parents = git("-C", one.repo.path, "log", "-1", "--format=%P", revision).split()
    onto = [part for parent in parents for part in ("-p", parent)]
    signed = git("-C", one.repo.path, *config, "commit-tree", "-S", "-m", "Signed", *onto, f"{revision}^{{tree}}")
    one.repo.set_tip(signed)
    return signed


def push_signed(one: Installation, key: Path, files: dict[str, bytes]) -> str:
    revision = one.repo.commit(files, branch="draft", parent=one.repo.tip())
    return sign(one, key, revision)


@contextmanager
def signed_fleet(folder: Path, mode: str) -> Iterator[tuple[Installation, Path]]:
    """A fleet whose first commit is signed with the key that is given too."""
    key = make_key(folder / "key")
    (folder / "allowed").write_text(f"{EMAIL} {key.with_suffix('.pub').read_text()}")
    environment = {"CLOUDLUNACY_ALLOWED_SIGNERS": str(folder / "allowed")}
    files = start_files("web", fleet=documents.fleet(signatures={"mode": mode}))
    with installation(folder / "one", traefik=False, start=False, environment=environment) as one:
        first = sign(one, key, one.push(files, "Start"))
        one.start()
        assert one.status_wait(first)["state"] == "Converged"
        yield one, key


def forge(one: Installation, own: str) -> str:
    """Push a commit that has everything of a commit of the control plane but what it changes."""
    other = one.repo.commit({"agents/vps-8.yaml": documents.agent("vps-8")}, branch="draft", parent=own)
    tree = git("-C", one.repo.path, "rev-parse", f"{other}^{{tree}}")
    said = git("-C", one.repo.path, "cat-file", "commit", own).split("\n", 2)[2]
    text = f"tree {tree}\nparent {own}\n{said}\n".encode()
    forged = git("-C", one.repo.path, "hash-object", "-t", "commit", "-w", "--stdin", stdin=text)
    one.repo.set_tip(forged)
    return forged


def tip(one: Installation) -> str:
    return one.repo.tip() or ""


def is_held(found: dict[str, Any]) -> bool:
    return (found["state"], found["reason"]) == ("Held", "SignatureMissing")


@pytest.mark.parametrize("mode", ["head", "strict"])
def test_only_signed_commits_are_let_in(tmp_path: Path, mode: str) -> None:
    """An unsigned commit and one by a stranger are held; signed by an allowed key it is live."""
    stranger = make_key(tmp_path / "stranger")
    with signed_fleet(tmp_path, mode) as (one, key):
        unsigned = one.status_wait(one.push({"routes/shop/a.yaml": web("a", 8081)}))
        assert (unsigned["state"], unsigned["reason"]) == ("Held", "SignatureMissing")
        assert "has no good signature" in unsigned["message"]
        foreign = one.status_wait(push_signed(one, stranger, {"routes/shop/b.yaml": web("b", 8082)}))
        assert (foreign["state"], foreign["reason"]) == ("Held", "SignatureMissing")
        on_top = one.status_wait(push_signed(one, key, {"routes/shop/c.yaml": web("c", 8083)}))
        if mode == "head":
            assert on_top["state"] == "Converged"
            return
        assert on_top["reason"] == "SignatureMissing"
        assert unsigned["revision"][:12] in on_top["message"] or foreign["revision"][:12] in on_top["message"]
        one.repo.set_tip(one.ask("/status")["revision"])
        good = one.status_wait(push_signed(one, key, {"routes/shop/d.yaml": web("d", 8084)}))
        assert good["state"] == "Converged", good


def test_an_unsigned_first_commit_is_held(tmp_path: Path) -> None:
    """A fleet that demands signatures is not taken from a commit that has none."""
    files = start_files("web", fleet=documents.fleet(signatures={"mode": "head"}))
    with installation(tmp_path / "one", traefik=False, start=False) as one:
        revision = one.push(files, "Start")
        one.start()
        assert is_held(one.status_wait(revision))


@pytest.mark.parametrize("mode", ["head", "strict"])
def test_enrolments_between_signed_commits_are_let_in(tmp_path: Path, mode: str) -> None:
    """The control plane's own commits need no signature, also after it was killed; a forged one like them does."""
    with signed_fleet(tmp_path, mode) as (one, key):
        enrolled = one.enrol("vps-9")
        assert enrolled.returncode == 0, enrolled.stderr
        assert one.status_wait(tip(one))["state"] == "Converged"
        one.kill()
        push_signed(one, key, {"routes/shop/a.yaml": web("a", 8081)})
        one.start()
        assert one.status_wait(tip(one))["state"] == "Converged"
        assert one.enrol("vps-8").returncode == 0
        good = tip(one)
        assert one.status_wait(good)["state"] == "Converged"
        assert is_held(one.status_wait(forge(one, good)))
        one.repo.set_tip(good)
        assert one.status_wait(push_signed(one, key, {"routes/shop/b.yaml": web("b", 8082)}))["state"] == "Converged"


@pytest.mark.parametrize("mode", ["head", "strict"])
def test_an_enrolment_lets_in_nothing_below_it(tmp_path: Path, mode: str) -> None:
    """An unsigned commit stays held when an agent enrols on top of it."""
    with signed_fleet(tmp_path, mode) as (one, _):
        unsigned = one.push({"routes/shop/a.yaml": web("a", 8081)})
        assert is_held(one.status_wait(unsigned))
        assert one.enrol("vps-9").returncode == 0
        found = one.status_wait(tip(one))
        assert is_held(found)
        assert unsigned[:12] in found["message"]
