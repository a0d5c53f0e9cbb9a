"""The authority of one fleet: it issues, revokes, lists and widens. Its files are those of :mod:`.folder`.

Nothing leaves before it is in the inventory, and no leaf leaves that a verifier would refuse: its names are held
against the constraints of every certificate above it first. ``now`` is an aware datetime; errors are ``Broken`` when
files or the clock are wrong, and ``Refused`` when somebody asked for what may not be.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from reconciler.errors import Broken, Refused
from reconciler.pki.authority import founding, intermediates, names, pairs, profiles, requests, revocation, succession
from reconciler.pki.authority.folder import ROLES, AuthorityKind, Folder, Outstanding
from reconciler.pki.authority.inventory import Issued
from reconciler.pki.authority.names import MAX_SUBTREES, Permitted
from reconciler.pki.authority.pairs import Pair
from reconciler.pki.authority.profiles import Issuer, Profile, PublicKey
from reconciler.pki.authority.revocation import Reason
from reconciler.pki.keystore import Role
from reconciler.pki.renewal import Authorities
from reconciler.pki.vault import Vault

_CLEAR: Final = Vault()


@dataclass(frozen=True, slots=True)
class Bundle:
    """The roots that verifiers trust: PEM, and the SHA-256 of each as hex; the current one first."""

    pem: str
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate that is in the inventory, with what has to be presented beside it."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """The intermediate, then the root: whoever knows only the root's fingerprint finds it in the handshake."""

    @property
    def pem(self) -> str:
        """The leaf and its chain, as servers want them."""
        return pairs.pem(self.certificate, *self.chain).decode("ascii")

    @property
    def serial(self) -> int:
        """The serial, by which it is revoked."""
        return self.certificate.serial_number


class Authority:
    """Opens the authority under ``keys`` (``<data>/keys``). Any thread may call; what signs waits for the disk, 2 ms.

    Raises:
        Broken: when there is none, or its files are damaged, open to others, or sealed with another key. Sealed with
            a key that was not given: it can be looked at, and says so once it should sign.
    """

    def __init__(self, keys: Path, vault: Vault = _CLEAR) -> None:
        self._folder = Folder(keys, vault)
        self._version = ""
        self.listeners: list[Callable[[], None]] = []
        """Called, in whichever thread found out, when roots or intermediates are others than before."""
        with self._turn():
            if self._folder.pair("root") is None:
                raise Broken(f"There is no authority in {keys}.", hint="Make one: cloudlunacy pki init --data DIR")

    def __repr__(self) -> str:
        return f"Authority({', '.join(self.bundle().fingerprints)})"

    @classmethod
    def open_or_found(cls, keys: Path, vault: Vault = _CLEAR, *, permitted: Permitted, now: dt.datetime) -> Authority:
        """Open the authority; at first use make one whose root key lies beside it, and whose intermediate permits this.

        Raises:
            Broken: as above, and when the clock was never set.
        """
        founding.found(keys, vault, permitted, now=now)
        return cls(keys, vault)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Take a turn, and tell whoever listens what has become of it, or what another process did before."""
        with self._folder.turn():
            yield
            former, self._version = self._version, succession.version(self._folder)
        if former not in ("", self._version):
            for listener in self.listeners:
                listener()

    # --- what it is -----------------------------------------------------------------------------------------------

    def bundle(self) -> Bundle:
        """Return the roots of all roles."""
        with self._turn():
            found = [self._folder.pair("root", role) for role in ("current", "next", "previous")]
        roots = list(dict.fromkeys(pair.certificate for pair in found if pair is not None))
        return Bundle(pairs.pem(*roots).decode("ascii"), tuple(profiles.fingerprint(one) for one in roots))

    def pairs(self, kind: AuthorityKind) -> Mapping[Role, Pair]:
        """Return the roots or the intermediates by role."""
        with self._turn():
            found = {role: self._folder.pair(kind, role) for role in ROLES}
        return {role: pair for role, pair in found.items() if pair is not None}

    def version(self) -> str:
        """Return what changes when any root or intermediate does, by whatever process."""
        with self._turn():
            return succession.version(self._folder)

    def authorities(self) -> Authorities:
        """Return the keys above what is issued now, and those under which nothing shall be served any more."""
        with self._turn():
            return succession.authorities(self._folder)

    def permitted(self) -> Permitted:
        """Return what the current intermediate may sign; nothing where it waits for a person."""
        with self._turn():
            return self._permitted()

    def counts(self, now: dt.datetime) -> Mapping[str, Mapping[str, int]]:
        """Return how many certificates of each kind are good, expired and revoked."""
        with self._turn():
            return self._folder.inventory.counts(now)

    def outstanding(self) -> Outstanding | None:
        """Return what waits for a person."""
        with self._turn():
            return self._folder.outstanding()

    # --- leaves ---------------------------------------------------------------------------------------------------

    def issue(self, profile: Profile, public_key: PublicKey, *, holder: str, now: dt.datetime) -> Leaf:
        """Make a leaf for ``holder`` (``agent/vps-1``, ``server``, ``certificate/apps``) and list it.

        Raises:
            Refused: 409 ``name-not-permitted`` when it names what no verifier would take from this authority.
            Broken: when there is no intermediate yet, or the clock says that it is not valid.
        """
        with self._turn():
            issuer, above = self._issuer(now)
            for authority in (issuer.certificate, *above):
                _refuse_outside(authority, profile.names)
            serial = x509.random_serial_number()
            certificate = profiles.leaf(profile, public_key, issuer, serial=serial, now=now)
            self._folder.inventory.record(
                Issued.of(
                    certificate,
                    kind=profile.kind,
                    holder=holder,
                    names=profile.names.texts(),
                    issuer=profiles.key_id(issuer.certificate),
                    at=now,
                )
            )
            self._folder.inventory.compact(now)
        return Leaf(certificate, (issuer.certificate, *above))

    def latest(self, holder: str) -> Issued | None:
        """Return the newest certificate of a holder, expired or revoked ones included."""
        with self._turn():
            return self._folder.inventory.latest(holder)

    def find(self, serial: int) -> Issued | None:
        """Return what the inventory says of a certificate."""
        with self._turn():
            return self._folder.inventory.find(serial)

    def revoke(self, serial: int, reason: Reason, now: dt.datetime) -> Issued:
        """Revoke a certificate; a second time changes nothing.

        Raises:
            Refused: 404 ``no-such-certificate``.
        """
        with self._turn():
            self._revoke(serial, reason, now)
            found = self._folder.inventory.find(serial)
        if found is None:
            raise Refused(f"No certificate has the serial {serial:x}.", status=404, code="no-such-certificate")
        return found

    def revoke_holder(self, holder: str, reason: Reason, now: dt.datetime) -> tuple[Issued, ...]:
        """Revoke everything of a holder, and of holders below it, that is still good; return it."""
        with self._turn():
            held = (one for one in self._folder.inventory if f"{one.holder}/".startswith(f"{holder}/"))
            good = tuple(one for one in held if one.good(now))
            for one in good:
                self._revoke(one.serial, reason, now)
        return good

    def holders(self, now: dt.datetime) -> Mapping[str, Issued]:
        """Return the newest good certificate of each holder that has one."""
        with self._turn():
            return {one.holder: one for one in self._folder.inventory if one.good(now)}

    def crl(self, now: dt.datetime, key_id: str = "") -> bytes:
        """Return the list of revocations of the current intermediate, or of whoever has this key; DER (RFC 5280, 5).

        It is signed anew when half its time has passed, and when something was revoked since.

        Raises:
            Refused: 404 ``no-such-authority``.
        """
        with self._turn():
            issuer = self._lister(key_id) if key_id else self._issuer(now)[0]
            return _crl(self._folder, issuer, now)

    def crl_issuers(self) -> tuple[str, ...]:
        """Return the key ids of the intermediates that sign lists of revocations; the current one first."""
        with self._turn():
            found = [self._folder.pair("intermediate", role) for role in ("current", "previous")]
        return tuple(dict.fromkeys(profiles.key_id(pair.certificate) for pair in found if pair is not None))

    def _lister(self, key_id: str) -> Issuer:
        for _, _, pair in self._folder.pairs():
            if profiles.key_id(pair.certificate) == key_id and (issuer := pair.issuer()) is not None:
                return issuer
        raise Refused("No authority here has this key.", status=404, code="no-such-authority")

    # --- one follows another (see reconciler.pki.rotation) ----------------------------------------------------------

    def prepare_next(self, kind: AuthorityKind, permitted: Permitted, now: dt.datetime) -> Outstanding | None:
        """See to a next root, or a next intermediate, that permits this. None: it is there; else what waits."""
        with self._turn():
            return succession.prepare(self._folder, kind, permitted, now=now)

    def promote_next(self, kind: AuthorityKind) -> None:
        """Let the next one sign from now on; the former stays known."""
        with self._turn():
            succession.promote(self._folder, kind)

    def revoke_former(self, now: dt.datetime) -> None:
        """Put the former intermediate on the list of its root: others know its key."""
        with self._turn():
            succession.revoke_former(self._folder, now)

    def drop_next(self) -> None:
        """Forget the next ones: they never signed anything that left."""
        with self._turn():
            succession.drop_next(self._folder)

    def drop_former(self, kind: AuthorityKind) -> None:
        """Forget the former one."""
        with self._turn():
            succession.drop_former(self._folder, kind)

    def former_in_use_until(self, now: dt.datetime) -> dt.datetime | None:
        """Return when the last certificate under the former intermediate ends that was not replaced; None: none is."""
        with self._turn():
            return succession.former_in_use_until(self._folder, now)

    # --- what it may sign -----------------------------------------------------------------------------------------

    def ensure_permitted(self, wanted: Permitted, now: dt.datetime) -> Outstanding | None:
        """See to an intermediate that permits ``wanted`` and lives long enough; None: all is well.

        A new certificate for the same key permits what the former did and ``wanted`` too, so no leaf has to be replaced
        and nobody has to be told. Where the root's key is offline, the former stays in service and what a person has to
        do is returned; ``cloudlunacy pki status`` and ``pki request`` know it from then on.
        """
        with self._turn():
            outstanding = self._ensure(self._permitted() | wanted, now)
            self._folder.set_outstanding(outstanding)
        return outstanding

    def request(self, wanted: Permitted = Permitted()) -> bytes:  # noqa: B008 - frozen
        """Return a signing request (PEM): permit what the intermediate does by now, what waits, and ``wanted``."""
        with self._turn():
            waiting = self._folder.outstanding()
            permitted = self._permitted() | wanted | (waiting.permitted if waiting else Permitted())
            current = self._folder.pair("intermediate")
            issuer = current.issuer() if current is not None else None
            key = self._folder.waiting_key() or (issuer.key if issuer is not None else self._folder.make_waiting_key())
            return requests.request_for_intermediate(key, permitted)

    def install(self, content: bytes, now: dt.datetime) -> Permitted:
        """Take an intermediate (PEM) that the root signed, and put it into service; return what it permits.

        Raises:
            Broken: when it is not what was asked for; the message says why, and the former stays.
        """
        certificate = pairs.read_certificate(content)
        if certificate is None:
            raise Broken("This is no certificate.", hint="Give what pki sign printed: PEM.")
        with self._turn():
            if self._folder.wants_root() and intermediates.signed_by(certificate, certificate):
                succession.install_root(self._folder, certificate, now)
                return self._permitted()
            key = intermediates.key_for(self._folder, certificate)
            root = intermediates.root_of(self._folder, certificate)
            permitted = intermediates.check(certificate, root, now)
            intermediates.record(self._folder, certificate, root, permitted, now=now)
            role = intermediates.role_for(self._folder, key)
            self._folder.put("intermediate", role, Pair(certificate, key))
            self._folder.drop_waiting_key()
            waiting = self._folder.outstanding()
            if waiting is not None and permitted.includes(waiting.permitted):
                self._folder.set_outstanding(None)
        return permitted

    def _ensure(self, target: Permitted, now: dt.datetime) -> Outstanding | None:
        current, root = self._folder.pair("intermediate"), self._folder.pair("root")
        if root is None:
            raise Broken("The root of the authority is gone.", hint="Restore it from a backup.")
        enough = current is not None and self._permitted().includes(target)
        if current is not None and enough and not intermediates.unfit(current, root.certificate, now):
            return None
        if len(target) > MAX_SUBTREES:
            return _too_many(target)
        issuer = root.issuer()
        if issuer is None:
            return _offline(self._permitted(), target)
        intermediates.make(self._folder, issuer, target, now=now)
        return None

    def _permitted(self) -> Permitted:
        pair = self._folder.pair("intermediate")
        return Permitted() if pair is None else intermediates.permitted_of(pair.certificate)

    def _issuer(self, now: dt.datetime) -> tuple[Issuer, tuple[x509.Certificate, ...]]:
        pair = self._folder.pair("intermediate")
        issuer = pair.issuer() if pair is not None else None
        if issuer is None:
            raise Broken("The authority has no intermediate yet, so it can sign nothing.", hint=founding.ASK)
        root = intermediates.root_of(self._folder, issuer.certificate)
        for one in (issuer.certificate, root):
            intermediates.check_time(one, now)
        return issuer, (root,)

    def _revoke(self, serial: int, reason: Reason, now: dt.datetime) -> None:
        found = self._folder.inventory.find(serial)
        if found is not None and found.revoked_at is None:
            self._folder.inventory.revoke(serial, reason, now)


def _crl(folder: Folder, issuer: Issuer, now: dt.datetime) -> bytes:
    key_id = profiles.key_id(issuer.certificate)
    wanted = [
        revocation.Revoked(one.serial, one.revoked_at, one.reason)
        for one in folder.inventory
        if one.revoked_at and one.reason and one.issuer == key_id and now < one.not_after + revocation.LIFETIME
    ]
    before = folder.crl(key_id)
    former = revocation.read(before, issuer)
    if former is not None and revocation.still_says(former, wanted, now):
        return before
    number = revocation.next_number(former, now)
    made = revocation.revocation_list(issuer, wanted, number=number, now=now)
    der = made.public_bytes(serialization.Encoding.DER)
    folder.put_crl(key_id, der)
    return der


def _refuse_outside(authority: x509.Certificate, wanted: names.Names) -> None:
    try:
        constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return
    refused = names.outside(constraints, wanted)
    if refused:
        raise Refused(
            f"{', '.join(refused)}: outside what {authority.subject.rfc4514_string()} may sign, so every verifier "
            "would refuse the certificate.",
            status=409,
            code="name-not-permitted",
            hint="cloudlunacy pki status --data DIR says what it may sign, and what waits for a person.",
        )


def _too_many(target: Permitted) -> Outstanding:
    return Outstanding(
        "TooManyNames",
        f"The fleet names {len(target)} base domains and addresses; an intermediate can permit {MAX_SUBTREES}.",
        "Bring hostnames of teams under fewer base domains, or give those outside certificates of another issuer.",
        target,
    )


def _offline(permitted: Permitted, target: Permitted) -> Outstanding:
    lacking = [text for text in target.texts() if text not in permitted.texts()]
    what = f"does not permit {', '.join(lacking)}" if lacking else "ends soon, or is not valid yet"
    message = f"The intermediate {what}; the key of the root is not here to sign another."
    return Outstanding("RootOffline", message, founding.ASK, target)
