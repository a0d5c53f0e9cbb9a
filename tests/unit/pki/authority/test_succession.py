"""One root or intermediate follows another, and verifiers judge as each phase says."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509

from reconciler.errors import Broken, Refused
from reconciler.pki.authority import founding, intermediates, pairs, profiles
from reconciler.pki.authority.authority import Authority, Leaf
from reconciler.pki.authority.folder import AuthorityKind, Folder
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.vault import Secret, Vault
from tests.support.certificates import KEY, NOW, new_root
from tests.support.openssl import verify

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
AGENT = profiles.agent("fleet.test", "vps-1")
DAY = dt.timedelta(days=1)
KINDS: tuple[AuthorityKind, ...] = ("root", "intermediate")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def authority(keys: Path) -> Authority:
    return Authority.open_or_found(keys, permitted=FLEET, now=NOW)


def leaf(authority: Authority, holder: str = "agent/vps-1") -> Leaf:
    return authority.issue(AGENT, KEY.public_key(), holder=holder, now=NOW)


def good(tmp_path: Path, one: Leaf, bundle: str) -> bool:
    return verify(tmp_path, one.pem, bundle, at=NOW, hostname="vps-1.agents.fleet.test").good


def test_old_and_new_bundle_judge_as_the_phases_say(authority: Authority, tmp_path: Path) -> None:
    """openssl: the old one is enough until activation, the new one from distribution on, and in the end no more."""
    former, before = authority.bundle().pem, leaf(authority)

    assert authority.prepare_next("root", FLEET, NOW) is None
    both, distributed = authority.bundle().pem, leaf(authority)
    assert [good(tmp_path, distributed, bundle) for bundle in (former, both)] == [True, True]

    authority.promote_next("root")
    after = leaf(authority)
    assert [good(tmp_path, after, bundle) for bundle in (former, both, authority.bundle().pem)] == [False, True, True]
    assert good(tmp_path, before, both)

    authority.drop_former("root")
    last = authority.bundle().pem
    assert [good(tmp_path, one, last) for one in (before, after)] == [False, True]


def test_an_intermediate_follows_without_another_root(authority: Authority, tmp_path: Path) -> None:
    """Whoever holds the root needs nothing new; the key and the name are others."""
    bundle, before = authority.bundle(), leaf(authority)
    authority.prepare_next("intermediate", FLEET, NOW)
    authority.promote_next("intermediate")
    after = leaf(authority)

    assert authority.bundle() == bundle
    assert before.chain[0].subject != after.chain[0].subject
    assert [good(tmp_path, one, bundle.pem) for one in (before, after)] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_may_be_done_twice(authority: Authority, kind: AuthorityKind) -> None:
    """The next one stays the same however often one prepares, and a second promotion brings nobody else."""
    authority.prepare_next(kind, FLEET, NOW)
    following = authority.pairs(kind)["next"].certificate
    authority.prepare_next(kind, FLEET, NOW)
    for _ in range(2):
        authority.promote_next(kind)
        assert authority.pairs(kind)["current"].certificate == following
        assert set(authority.pairs(kind)) == {"current", "previous"}
    for _ in range(2):
        authority.drop_former(kind)
        assert set(authority.pairs(kind)) == {"current"}


def test_what_it_may_sign_is_what_is_needed_by_then(authority: Authority) -> None:
    """A new key needs no name that the former one was given once."""
    authority.ensure_permitted(permitted_for(domain="old.test"), NOW)
    authority.prepare_next("intermediate", FLEET, NOW)
    authority.promote_next("intermediate")

    assert authority.permitted() == FLEET


def test_the_former_key_is_to_be_left(authority: Authority) -> None:
    """By the key, so that certificates of the same intermediate from before it was widened count too."""
    narrow = leaf(authority)
    authority.ensure_permitted(FLEET | permitted_for(domain="more.test"), NOW)
    assert authority.authorities().tainted == frozenset()
    authority.prepare_next("intermediate", FLEET, NOW)
    assert authority.authorities().usable
    authority.promote_next("intermediate")

    found, above = authority.authorities(), {profiles.authority_id(one) for one in narrow.chain}
    assert found.usable
    assert len(above & found.tainted) == 1
    assert above - found.tainted == above & found.signing == {profiles.authority_id(narrow.chain[1])}


def test_it_knows_who_still_has_one_of_the_former(authority: Authority) -> None:
    """A holder that has a newer one, and a certificate that was revoked, need the former no more."""
    leaf(authority)
    gone = leaf(authority, "agent/vps-2")
    authority.prepare_next("intermediate", FLEET, NOW)
    assert authority.former_in_use_until(NOW) is None
    authority.promote_next("intermediate")

    assert authority.former_in_use_until(NOW) == NOW + DAY
    leaf(authority)
    assert authority.former_in_use_until(NOW) == NOW + DAY
    authority.revoke(gone.serial, "superseded", NOW)
    assert authority.former_in_use_until(NOW) is None


def test_each_issuer_has_a_list_of_its_own(authority: Authority, tmp_path: Path) -> None:
    """What the former signed is on the former's list as long as it is there."""
    one = leaf(authority)
    authority.prepare_next("intermediate", FLEET, NOW)
    authority.promote_next("intermediate")
    other = leaf(authority)
    for each in (one, other):
        authority.revoke(each.serial, "superseded", NOW)
    current, former = authority.crl_issuers()

    assert [serials(authority.crl(NOW, key)) for key in (former, current, "")] == [
        {one.serial}, {other.serial}, {other.serial},
    ]  # fmt: skip
    revoked = verify(tmp_path, one.pem, authority.bundle().pem, at=NOW, crl=authority.crl(NOW, former))
    assert "revoked" in revoked.text
    authority.drop_former("intermediate")
    with pytest.raises(Refused, match="No authority here"):
        authority.crl(NOW, former)


def test_of_a_stolen_intermediate_the_root_says_so(authority: Authority) -> None:
    """Every certificate of the key is on the root's list, also from before it was widened, and the next is not."""
    first = authority.pairs("intermediate")["current"].certificate
    authority.ensure_permitted(FLEET | permitted_for(domain="more.test"), NOW)
    second, root = (
        authority.pairs("intermediate")["current"].certificate,
        authority.pairs("root")["current"].certificate,
    )
    authority.prepare_next("intermediate", FLEET, NOW + DAY)
    authority.promote_next("intermediate")
    for _ in range(2):
        authority.revoke_former(NOW + DAY)
    crl = x509.load_der_x509_crl(authority.crl(NOW + DAY, profiles.key_id(root)))

    assert {one.serial_number for one in crl} == {first.serial_number, second.serial_number}
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    assert leaf(authority)


def serials(crl: bytes) -> set[int]:
    return {one.serial_number for one in x509.load_der_x509_crl(crl)}


def test_whoever_listens_is_told_of_every_change(authority: Authority, keys: Path) -> None:
    """Also of what another process did, at the next look."""
    told: list[str] = []
    authority.listeners.append(lambda: told.append(authority.version()))
    leaf(authority)
    assert told == []
    authority.prepare_next("root", FLEET, NOW)
    Authority(keys).promote_next("root")
    assert len(told) == 1
    authority.bundle()

    assert len(set(told)) == 2


def test_with_the_key_of_the_root_elsewhere_a_person_signs_the_next(keys: Path, tmp_path: Path) -> None:
    """Request, sign and install, while the former goes on signing."""
    root = new_root()
    founding.bring(keys, Vault(), FLEET, certificate=root.certificate, key=root.key, keep_key=False, now=NOW)
    authority, (former,) = Authority(keys), Authority(keys).crl_issuers()
    waits = authority.prepare_next("intermediate", FLEET, NOW)
    assert waits is not None
    assert "pki request" in waits.hint

    signed, permitted = intermediates.sign_request(root, authority.request(), now=NOW)
    assert permitted.includes(FLEET)
    authority.install(pairs.pem(signed), NOW)
    assert authority.crl_issuers() == (former,)
    assert authority.prepare_next("intermediate", FLEET, NOW) is None
    authority.promote_next("intermediate")

    assert authority.crl_issuers() == (profiles.key_id(signed), former)
    assert good(tmp_path, leaf(authority), pairs.pem(root.certificate).decode())


def test_with_the_key_of_the_root_elsewhere_the_next_root_is_handed_in(keys: Path, tmp_path: Path) -> None:
    """And only when it is asked for: a root that is trusted by accident would be trusted by everybody."""
    root, following = new_root(), new_root()
    founding.bring(keys, Vault(), FLEET, certificate=root.certificate, key=root.key, keep_key=False, now=NOW)
    authority, content = Authority(keys), pairs.pem(following.certificate)
    with pytest.raises(Broken, match="not here"):
        authority.install(content, NOW)

    waits = authority.prepare_next("root", FLEET, NOW)
    assert waits is not None
    assert "pki install" in waits.hint
    authority.install(content, NOW)
    assert len(authority.bundle().fingerprints) == 2
    waits = authority.prepare_next("root", FLEET, NOW)
    assert waits is not None
    assert "pki request" in waits.hint
    signed, _ = intermediates.sign_request(following, authority.request(), now=NOW)
    authority.install(pairs.pem(signed), NOW)
    assert authority.prepare_next("root", FLEET, NOW) is None
    authority.promote_next("root")

    assert good(tmp_path, leaf(authority), pairs.pem(following.certificate).decode())


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> Iterator[None]:
    """Let so many changes of files through, and none after them."""
    left = [writes]

    def counted(real: object) -> object:
        def change(*arguments: object, **more: object) -> object:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*arguments, **more)  # type: ignore[operator]

        return change

    with monkeypatch.context() as patch:
        for name in ("put", "copy", "drop"):
            patch.setattr(Folder, name, counted(getattr(Folder, name)))
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sealed", [False, True], ids=["clear", "sealed"])
def test_a_kill_between_any_two_changes_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: AuthorityKind, sealed: bool
) -> None:
    """At each point it can still sign, what it signs verifies, and the same steps come to the same end."""
    secret = Secret("hkdf-sha256", b"k" * 32) if sealed else None
    for writes in range(8):
        keys = tmp_path / str(writes) / "keys"
        Authority.open_or_found(keys, Vault.unlock(keys, secret), permitted=FLEET, now=NOW)
        with killed_after(monkeypatch, writes), suppress(Killed):
            rotate(Authority(keys, Vault.unlock(keys, secret)), kind)
        authority = Authority(keys, Vault.unlock(keys, secret))
        assert good(tmp_path, leaf(authority), authority.bundle().pem), writes
        rotate(authority, kind)

        assert set(authority.pairs(kind)) == {"current"}
        assert good(tmp_path, leaf(authority), authority.bundle().pem)
        shutil.rmtree(keys)


def rotate(authority: Authority, kind: AuthorityKind) -> None:
    """Go on from where it is, as the driver does."""
    roles = set(authority.pairs(kind))
    if "previous" not in roles:
        authority.prepare_next(kind, FLEET, NOW)
    authority.promote_next(kind)
    authority.drop_former(kind)
