"""The desired state of this machine: what makes a document good, and how it stays on disk.

A document is taken in this order, and every step refuses with a reason of its own:

1. size and shape: a compact JWS (RFC 7515);
2. header: exactly ``alg`` ES256, ``typ`` and ``kid``; whatever else it offers refuses it (RFC 8725);
3. signature, by a key that was pinned at enrolment;
4. the payload's schema;
5. name: it is for this agent;
6. digests, of each item and of all;
7. expiry, unless it comes from the disk: what was taken once stays in force.

Whether it is newer than what is held is for :mod:`agent.applier` to say.

On disk: ``desired.jws`` is the newest document that was taken, as it was signed, and is verified again when it is
loaded; ``applied.json`` says which one was fully applied. Each is replaced in one step, so that a reader finds the old
one or the new one, whole, whenever the power fails.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from schemas.base import Model
from schemas.jwk import JwkSet, SigningJwk
from schemas.session import MAX_DOCUMENT, Digest, Document, Generation, digest_of, digest_of_items

UNKNOWN_KEY: Final = "UnknownKey"
LEEWAY: Final = timedelta(seconds=60)
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{2,1024}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{86}")
_JWS: Final = jwt.PyJWS(algorithms=["ES256"])

Keys = Mapping[str, ec.EllipticCurvePublicKey]
"""Key id → public key."""


class _Header(Model):
    alg: Literal["ES256"]
    typ: Literal["cloudlunacy-desired+jws"]
    kid: str


class Refusal(Exception):
    """A document is not good. ``reason`` is a CamelCase word; generation and digest are set once they are proven."""

    def __init__(self, reason: str, message: str, document: Document | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.generation = document.generation if document is not None else 0
        self.digest = document.digest if document is not None else None


def keys_of(jwks: JwkSet) -> Keys:
    """Turn the pinned key set into keys; one whose point is not on the curve is left out."""
    keys = {}
    for jwk in jwks.keys:
        try:
            keys[jwk.kid] = _public_key(jwk)
        except ValueError:
            continue
    return keys


class DocumentKeys(Keys):
    """The keys of a set that may be another one tomorrow: documents say whose signatures to believe from then on."""

    def __init__(self, jwks: Callable[[], JwkSet]) -> None:
        self._jwks = jwks
        self._read: JwkSet | None = None
        self._keys: Keys = {}

    def __getitem__(self, kid: str) -> ec.EllipticCurvePublicKey:
        return self._present()[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def _present(self) -> Keys:
        jwks = self._jwks()
        if jwks is not self._read:
            self._read, self._keys = jwks, keys_of(jwks)
        return self._keys


def verify(jws: str, *, agent: str, keys: Keys, now: datetime | None) -> Document:
    """Return the document that ``jws`` proves. ``now`` is aware, None for one from the disk.

    Raises:
        Refusal: as the module says.
    """
    payload = _signed_payload(jws, keys)
    try:
        document = Document.model_validate_json(payload)
    except ValidationError as error:
        raise Refusal("InvalidDocument", f"{error.error_count()} fields are not as they should be.") from None
    if document.agent != agent:
        raise Refusal("ForeignName", f'The document is for "{document.agent}".', document)
    _check_digests(document)
    if now is not None and _aware(document.expires_at) + LEEWAY < now:
        raise Refusal("Expired", f"The document was good until {document.expires_at.isoformat()}.", document)
    return document


def _check_digests(document: Document) -> None:
    for item in document.items:
        if digest_of(item.spec) != item.digest:
            raise Refusal("DigestMismatch", f"{item.id} is not what its digest says.", document)
    if digest_of_items(document.items) != document.digest:
        raise Refusal("DigestMismatch", "The items are not what the digest says.", document)
    if len({item.id for item in document.items}) != len(document.items):
        raise Refusal("InvalidDocument", "An item is there twice.", document)


def _signed_payload(jws: str, keys: Keys) -> bytes:
    """Steps 1 to 3."""
    if len(jws) > MAX_DOCUMENT:
        raise Refusal("TooLarge", f"The document has more than {MAX_DOCUMENT} bytes.")
    if _SHAPE.fullmatch(jws) is None:
        raise Refusal("NotSigned", "The document is not a compact JWS.")
    try:
        header = _Header.model_validate_json(_decode(jws.partition(".")[0]), strict=True)
    except ValueError:
        raise Refusal("WrongHeader", "The document is not signed the way documents are.") from None
    key = keys.get(header.kid)
    if key is None:
        raise Refusal(UNKNOWN_KEY, "The document is signed by a key that is not pinned here.")
    try:
        payload: bytes = _JWS.decode_complete(jws, key, algorithms=["ES256"])["payload"]
    except jwt.InvalidTokenError:
        raise Refusal("BadSignature", "The signature of the document does not fit.") from None
    return payload


def _public_key(jwk: SigningJwk) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(_decode(part), "big") for part in (jwk.x, jwk.y))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


class Applied(NamedTuple):
    """Which document is fully applied; (0, None) for none."""

    generation: int
    digest: str | None


class _Marker(Model):
    generation: Generation
    digest: Digest


@dataclass(frozen=True, slots=True)
class OnDisk:
    """What was found. ``damage`` says why a document had to be set aside."""

    document: Document | None
    applied: Applied
    damage: Refusal | None = None


class DocumentStore:
    """The two files under ``directory``. All methods block; writing raises OSError and then has changed nothing."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "desired.jws"
        self._marker = directory / "applied.json"

    def load(self, agent: str, keys: Keys) -> OnDisk:
        """Read and verify; a document that is not good is moved to ``desired.jws.damaged`` for a person to look at.

        Raises:
            OSError: when the directory cannot be read.
        """
        applied = self.applied()
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_DOCUMENT + 1)
        except FileNotFoundError:
            return OnDisk(None, applied)
        try:
            document = verify(content.decode("ascii", "replace"), agent=agent, keys=keys, now=None)
            _refuse_older(document, applied)
            return OnDisk(document, applied)
        except Refusal as refusal:
            self.path.replace(self.path.with_suffix(".jws.damaged"))
            return OnDisk(None, applied, refusal)

    def save(self, jws: str) -> None:
        """Replace the document, durably."""
        _replace(self.path, jws.encode("ascii"))

    def mark_applied(self, applied: Applied) -> None:
        """Remember durably what is applied."""
        _replace(self._marker, json.dumps(applied._asdict()).encode())

    def applied(self) -> Applied:
        """Return which document is fully applied.

        Raises:
            OSError: when the file cannot be read.
        """
        try:
            marker = _Marker.model_validate_json(self._marker.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Applied(0, None)
        return Applied(marker.generation, marker.digest)


def _refuse_older(document: Document, applied: Applied) -> None:
    """A document is saved before its marker, so an older one means that somebody put an old file back."""
    if document.generation < applied.generation:
        raise Refusal("OlderGeneration", f"Generation {applied.generation} was applied already.", document)


def _replace(path: Path, content: bytes) -> None:
    """Write beside, sync, rename, sync the directory: after a crash the name has the old content or the new."""
    aside = path.with_name(f".{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
