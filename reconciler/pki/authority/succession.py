"""How one root or intermediate follows another, as files: made beside it, put into its place, and the former dropped.

Each function is called within a turn of the folder, changes one file at a time, and may be called again after a crash
at any point: what is done already is found done. When each is called is for :mod:`reconciler.pki.rotation` to say.

A new root comes with an intermediate of its own; a new intermediate has a new key. Until it is promoted, the next one
signs nothing, but verifiers that take the bundle know its root.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from cryptography import x509

from reconciler.errors import Broken
from reconciler.pki.authority import founding, intermediates, profiles
from reconciler.pki.authority.folder import AuthorityKind, Folder, Outstanding
from reconciler.pki.authority.names import Permitted
from reconciler.pki.authority.pairs import Pair, new_key
from reconciler.pki.authority.profiles import Issuer
from reconciler.pki.renewal import Authorities

_BRING: Final = (
    "Make a root where such keys are kept, and hand in its certificate: cloudlunacy pki install --data DIR FILE. "
    "cloudlunacy pki init --data ELSEWHERE --root-key-out FILE makes one; its certificate is ELSEWHERE/keys/authority/"
    "root-current.pem."
)


def prepare(folder: Folder, kind: AuthorityKind, permitted: Permitted, *, now: dt.datetime) -> Outstanding | None:
    """See to a next one. None: it is there; else what a person has to do first."""
    if kind == "root" and (waits := _prepare_root(folder, permitted, now)) is not None:
        return waits
    root = folder.pair("root", "next") or folder.pair("root")
    if root is None:
        raise Broken("The root of the authority is gone.", hint="Restore it from a backup.")
    following = folder.pair("intermediate", "next")
    if following is not None and intermediates.signed_by(following.certificate, root.certificate):
        return None
    issuer = root.issuer()
    if issuer is None:
        folder.make_waiting_key()
        text = f"The next intermediate waits for the signature of {root.certificate.subject.rfc4514_string()}."
        return Outstanding("RootOffline", text, founding.ASK, permitted)
    _make_intermediate(folder, issuer, permitted, now)
    return None


def promote(folder: Folder, kind: AuthorityKind) -> None:
    """Put the next one into the place of the current one, which becomes the former. A second time changes nothing."""
    if kind == "root":
        _promote(folder, "root")
    _promote(folder, "intermediate")


def drop_next(folder: Folder) -> None:
    """Give up what was prepared."""
    folder.want_root(wanted=False)
    if folder.pair("intermediate") is not None:
        folder.drop_waiting_key()
    folder.drop("intermediate", "next")
    folder.drop("root", "next")


def drop_former(folder: Folder, kind: AuthorityKind) -> None:
    """Forget the former one: nobody trusts or lists it from here on."""
    folder.drop("intermediate", "previous")
    if kind == "root":
        folder.drop("root", "previous")


def revoke_former(folder: Folder, now: dt.datetime) -> None:
    """Let the root say of every certificate of the former intermediate that its key is known to others."""
    former, current = folder.pair("intermediate", "previous"), folder.pair("intermediate")
    listed = folder.inventory.find(former.certificate.serial_number) if former is not None else None
    if listed is None or current is None:
        return
    own = current.certificate.serial_number
    for one in list(folder.inventory):  # those of the same key were issued before the last of them
        if one.kind == "intermediate" and one.serial != own and one.at <= listed.at and one.good(now):
            folder.inventory.revoke(one.serial, "cACompromise", now)


def authorities(folder: Folder) -> Authorities:
    """Return the keys that are above what is issued now, and those that nothing shall be served under any more."""
    signing: set[str] = set()
    if (current := folder.pair("intermediate")) is not None:
        root = intermediates.root_of(folder, current.certificate)
        signing = {profiles.authority_id(one) for one in (current.certificate, root)}
    former = (folder.pair("root", "previous"), folder.pair("intermediate", "previous"))
    tainted = {profiles.authority_id(pair.certificate) for pair in former if pair is not None}
    return Authorities(frozenset(signing), frozenset(tainted))


def version(folder: Folder) -> str:
    """Return what changes when any root or intermediate does."""
    return " ".join(f"{kind}-{role}:{profiles.fingerprint(pair.certificate)}" for kind, role, pair in folder.pairs())


def former_in_use_until(folder: Folder, now: dt.datetime) -> dt.datetime | None:
    """Return when the last certificate ends that is under no current intermediate and not replaced by its holder yet.

    After an emergency in the middle of a rotation that is not the former one's alone.
    """
    former, current = folder.pair("intermediate", "previous"), folder.pair("intermediate")
    if former is None or current is None:
        return None
    issuer = profiles.key_id(current.certificate)
    ends = [
        one.not_after
        for one in folder.inventory
        if one.kind not in ("root", "intermediate")
        and one.issuer != issuer
        and one.good(now)
        and folder.inventory.latest(one.holder) == one
    ]
    return max(ends, default=None)


def install_root(folder: Folder, certificate: x509.Certificate, now: dt.datetime) -> None:
    """Take somebody's own root for the next one; its key stays where it is."""
    founding.check_root(certificate, now)
    known = [pair.certificate for kind, _, pair in folder.pairs() if kind == "root"]
    if certificate in known:
        raise Broken("This root is known already.", hint="See cloudlunacy pki status.")
    folder.put("root", "next", Pair(certificate))
    founding.list_root(folder, certificate, now)
    folder.want_root(wanted=False)


def _prepare_root(folder: Folder, permitted: Permitted, now: dt.datetime) -> Outstanding | None:
    current, following = folder.pair("root"), folder.pair("root", "next")
    if following is not None:
        founding.list_root(folder, following.certificate, now)
        return None
    if current is None or not current.complete:
        folder.want_root(wanted=True)
        return Outstanding("NextRootMissing", "The key of the root is not here to be replaced.", _BRING, permitted)
    key = new_key()
    made = profiles.root(key, serial=x509.random_serial_number(), now=now)
    folder.put("root", "next", Pair(made, key))
    founding.list_root(folder, made, now)
    return None


def _make_intermediate(folder: Folder, issuer: Issuer, permitted: Permitted, now: dt.datetime) -> None:
    key = new_key()
    certificate = intermediates.sign(issuer, key.public_key(), permitted, now=now)
    intermediates.record(folder, certificate, issuer.certificate, permitted, now=now)
    folder.put("intermediate", "next", Pair(certificate, key))


def _promote(folder: Folder, kind: AuthorityKind) -> None:
    following, current = folder.pair(kind, "next"), folder.pair(kind)
    if following is None:
        return
    if current is None or current.certificate != following.certificate:
        if current is not None:
            folder.copy(kind, "current", "previous")
        folder.copy(kind, "next", "current")
    folder.drop(kind, "next")
