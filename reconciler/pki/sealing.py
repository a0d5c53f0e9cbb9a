"""Sealed values: age (X25519, ASCII armour), the only place that knows of it. Source: https://age-encryption.org/v1."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

import pyrage  # type: ignore[import-untyped]
from pydantic import SecretStr
from pyrage import x25519

from reconciler.desired.lookup import SecretUnavailable
from reconciler.errors import Broken


def new_identity() -> SecretStr:
    """Make a private X25519 identity (``AGE-SECRET-KEY-1…``)."""
    return SecretStr(str(x25519.Identity.generate()))


def seal(value: str, recipients: Sequence[str]) -> str:
    """Encrypt ``value`` so that the holder of any of ``recipients`` can open it; ASCII armour.

    Raises:
        ValueError: when there is no recipient, or one is not an X25519 recipient of age.
    """
    try:
        keys = [x25519.Recipient.from_str(recipient) for recipient in recipients]
        sealed: bytes = pyrage.encrypt(value.encode(), keys, armored=True)
    except (pyrage.RecipientError, pyrage.EncryptError) as error:
        raise ValueError(f"cannot seal to these recipients: {error}") from None
    return sealed.decode("ascii")


def count_recipients(armored: str) -> int:
    """Return to how many recipients, of any kind, a value is sealed; age does not say who they are. 0: damaged."""
    try:
        body = base64.b64decode("".join(armored.strip().splitlines()[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        return 0
    stanzas = [line.split()[1:2] for line in body.partition(b"\n--- ")[0].splitlines() if line.startswith(b"-> ")]
    return sum(not kind.endswith(b"-grease") for stanza in stanzas for kind in stanza)  # grease opens for nobody


class Opener:
    """Opens what was sealed to one identity."""

    def __init__(self, identity: SecretStr) -> None:
        try:
            self._identity = x25519.Identity.from_str(identity.get_secret_value())
        except pyrage.IdentityError:
            raise Broken(
                "The age identity of the control plane is damaged.", hint="Restore it from a backup."
            ) from None

    def __repr__(self) -> str:
        return f"Opener({self.recipient()})"

    def recipient(self) -> str:
        """The public part, ``age1…``, for ``spec.recipients`` of the fleet."""
        return str(self._identity.to_public())

    def open(self, armored: str) -> str:
        """Return the clear value.

        Raises:
            SecretUnavailable: when it is sealed to somebody else, damaged or not text. The message holds no value.
        """
        try:
            opened: bytes = pyrage.decrypt(armored.encode("ascii"), [self._identity])
            return opened.decode()
        except (pyrage.DecryptError, UnicodeError):
            raise SecretUnavailable(
                f"the value cannot be opened: it is damaged, or not sealed to {self.recipient()}"
            ) from None


class Keyring:
    """Opens with any of several identities by role: one follows another while values are sealed to either.

    It is changed in place, so that whoever was given :meth:`open` goes on with what there is by then.
    """

    def __init__(self, openers: Mapping[str, Opener]) -> None:
        self.openers = openers

    def __repr__(self) -> str:
        return f"Keyring({', '.join(opener.recipient() for opener in self.openers.values())})"

    def replace(self, openers: Mapping[str, Opener]) -> None:
        """Go on with these."""
        self.openers = openers

    def recipient(self) -> str:
        """The public part of the current one."""
        return self.openers["current"].recipient()

    def open(self, armored: str) -> str:
        """Return the clear value.

        Raises:
            SecretUnavailable: when none of them opens it. The message holds no value.
        """
        openers = self.openers
        for opener in openers.values():
            try:
                return opener.open(armored)
            except SecretUnavailable:
                continue
        recipients = dict.fromkeys(opener.recipient() for opener in openers.values())
        raise SecretUnavailable(
            f"the value cannot be opened: it is damaged, or not sealed to {' or '.join(recipients)}"
        )
