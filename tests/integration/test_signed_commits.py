"""Signature modes on a running control plane: who signs is let in, everything else waits for a person."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize("mode", ["head", "strict"])
def test_only_signed_commits_are_let_in(tmp_path: Path, mode: str) -> None:
    """An unsigned commit and one by a stranger are held; signed by an allowed key it is live."""
    key, stranger = make_key(tmp_path / "key"), make_key(tmp_path / "stranger")
    (tmp_path / "allowed").write_text(f"{EMAIL} {key.with_suffix('.pub').read_text()}")
    environment = {"CLOUDLUNACY_ALLOWED_SIGNERS": str(tmp_path / "allowed")}
    files = start_files("web", fleet=documents.fleet(signatures={"mode": mode}))
    with installation(tmp_path / "one", files, traefik=False, environment=environment) as one:
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
