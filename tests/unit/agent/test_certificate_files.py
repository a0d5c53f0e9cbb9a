"""The agent's certificate on its disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from agent.certificate import Fresh
from agent.certificate_files import CHAIN, KEY, LINK, RECEIVED, BadPair, CertificateFiles, Held
from reconciler.pki.agent_issuer import AgentIssuer
from schemas.certificates_api import AgentCertificate
from tests.support.agent_certificates import issuer, pair
from tests.support.certificates import of_no_version
from tests.support.tokens import NOW

DAY = 86_400.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> AgentIssuer:
    return issuer(tmp_path_factory.mktemp("authority") / "keys", now=NOW)


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return CertificateFiles(tmp_path, "vps-1")


def put(files: CertificateFiles, made: tuple[Fresh, AgentCertificate], at: float = NOW) -> Held:
    fresh, issued = made
    return files.install(fresh.key, issued.certificate.encode(), issued.bundle.encode(), received_at=at)


def test_what_was_put_into_place_is_found(authority: AgentIssuer, files: CertificateFiles, tmp_path: Path) -> None:
    """Its life begins when it came, not when its first valid moment was; nobody else may read it."""
    assert files.load() is None
    held = put(files, pair(authority, "vps-1", NOW))
    assert files.load() == held
    assert held.life == (NOW, NOW + DAY)
    assert stat.S_IMODE((tmp_path / LINK).resolve().stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / LINK).iterdir()} == {0o600}


def test_the_next_replaces_it_in_one_step(authority: AgentIssuer, files: CertificateFiles, tmp_path: Path) -> None:
    """Whoever resolved the link before reads the former pair, whole; of older ones nothing stays."""
    first = put(files, pair(authority, "vps-1", NOW))
    former = (first.directory / KEY).read_bytes(), (first.directory / CHAIN).read_bytes()
    second = put(files, pair(authority, "vps-1", NOW + 60), NOW + 60)
    assert files.load() == second
    assert ((first.directory / KEY).read_bytes(), (first.directory / CHAIN).read_bytes()) == former
    third = put(files, pair(authority, "vps-1", NOW + 120), NOW + 120)
    assert sorted(path for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()) == [
        second.directory,
        third.directory,
    ]


def test_what_does_not_belong_together_is_refused(
    authority: AgentIssuer, files: CertificateFiles, tmp_path: Path
) -> None:
    """Another key, another agent's certificate and nonsense are refused, and what is in place stays."""
    held = put(files, pair(authority, "vps-1", NOW))
    (fresh, issued), (other, theirs) = pair(authority, "vps-1", NOW), pair(authority, "vps-2", NOW)
    before = sorted(tmp_path.iterdir())
    pairs = ((other.key, issued.certificate), (other.key, theirs.certificate), (fresh.key, ""), (b"x", "x"))
    for key, chain in (*pairs, (fresh.key, of_no_version(issued.certificate))):
        with pytest.raises(BadPair):
            files.install(key, chain.encode(), issued.bundle.encode(), received_at=NOW)
    assert files.load() == held
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", [KEY, CHAIN, RECEIVED])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"{}", b"\xff" * 100])
def test_damage_is_as_if_there_were_none(
    authority: AgentIssuer, files: CertificateFiles, name: str, content: bytes | None
) -> None:
    """A file that is missing or damaged is no error: the agent asks for another certificate."""
    held = put(files, pair(authority, "vps-1", NOW))
    path = held.directory / name
    path.unlink() if content is None else path.write_bytes(content)
    assert files.load() is None
    assert put(files, pair(authority, "vps-1", NOW)) == files.load()


def test_a_full_disk_leaves_what_was_there(
    authority: AgentIssuer, files: CertificateFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written is an OSError, the former pair stays, and no half of one is left."""
    held = put(files, pair(authority, "vps-1", NOW))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    another = pair(authority, "vps-1", NOW)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            put(files, another)
    assert files.load() == held
    assert [path for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()] == [held.directory]
