"""The agent's key on disk, and the proofs that it signs."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from agent.keys import KEY_FILE, AgentKey, Unusable
from reconciler.errors import Refused
from reconciler.pki.tokens import verify_client_assertion, verify_dpop_proof, verify_enrolment_proof
from tests.support.tokens import ISSUER, NOW, thumbprint


def made(directory: str) -> str:
    return AgentKey.load_or_create(Path(directory)).thumbprint


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    """The first use writes it for its owner alone, the second finds the same."""
    first, second = (AgentKey.load_or_create(tmp_path / "data") for _ in range(2))

    assert first.thumbprint == second.thumbprint == thumbprint(first.private)
    assert stat.S_IMODE((tmp_path / "data" / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == [KEY_FILE]


def test_two_processes_end_with_one_key(tmp_path: Path) -> None:
    """An enrolment that is started twice at once uses one key."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(made, [str(tmp_path / "data")] * 8, chunksize=1))) == 1


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [(None, 0, "Enrol this machine first"), (b"canary", 0o600, "P-256"), (b"canary", 0o644, "open to other users")],
)
def test_an_unusable_key_is_a_sentence(tmp_path: Path, content: bytes | None, mode: int, sentence: str) -> None:
    """Missing, damaged or open to others: a sentence that says what to do and shows nothing of the file."""
    if content is not None:
        (tmp_path / KEY_FILE).write_bytes(content)
        (tmp_path / KEY_FILE).chmod(mode)

    with pytest.raises(Unusable, match=sentence) as caught:
        AgentKey.load(tmp_path)
    assert "canary" not in str(caught.value)


def test_the_key_is_not_shown(tmp_path: Path) -> None:
    """The representation holds the public part only."""
    key = AgentKey.load_or_create(tmp_path)

    assert "private" not in repr(key)
    assert key.public.x in repr(key)


def test_the_control_plane_takes_what_the_key_signs(tmp_path: Path) -> None:
    """Each kind of proof passes the control plane's own check, and the proof of one kind passes no other's."""
    key = AgentKey.load_or_create(tmp_path)
    url = f"{ISSUER}/x"
    enrolment = key.enrolment_proof(token_id="t", name="vps-1", now=NOW)
    assertion = key.client_assertion(name="vps-1", issuer=ISSUER, now=NOW)
    proof = key.dpop_proof("GET", "wss://control.example.test/x", now=NOW, access_token="a")

    verify_enrolment_proof(enrolment, key=key.public, token_id="t", name="vps-1", now=NOW)
    proven = verify_client_assertion(assertion, issuer=ISSUER, enrolled=lambda _: key.thumbprint, now=NOW)
    assert proven.name == "vps-1"
    assert verify_dpop_proof(proof, method="GET", url=url, access_token="a", now=NOW).thumbprint == key.thumbprint
    with pytest.raises(Refused):
        verify_dpop_proof(assertion, method="GET", url=url, access_token="a", now=NOW)
