"""The credential of whoever may read the data directory: ``<data>/credentials.json``, mode 0600.

It holds the address of the control plane, whom to trust there, and a private key, with which a command signs a token
for the minute. No token that lasts lies anywhere, and what leaks from a log or a proxy is soon worth nothing
(docs/adr/0007).
"""

from __future__ import annotations

import json
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken
from reconciler.pki import tokens
from reconciler.pki.authenticator import OPERATOR_SCOPES
from reconciler.pki.keystore import KeyStore, SigningKey
from reconciler.pki.private_files import write_private

FILE_NAME: Final = "credentials.json"
_NAME: Final = "local"


@dataclass(frozen=True, slots=True)
class OperatorCredential:
    """Where the control plane answers, and the key that it knows its operator by."""

    address: str
    """URL to connect to."""
    issuer: str
    """Public URL; the audience of tokens."""
    key: SigningKey = field(repr=False)
    ca: str = field(default="", repr=False)
    """Roots (PEM) to trust at ``address``; none where it speaks plain HTTP."""

    @classmethod
    def write(cls, data: Path, *, address: str, issuer: str, keys: KeyStore, ca: str = "") -> OperatorCredential:
        """Write the file, replacing the former one; ``serve`` does so once it knows its address."""
        credential = cls(address, issuer, keys.signing("operator"), ca)
        pem = credential.key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        document = {"address": address, "issuer": issuer, "ca": ca, "key": pem.decode("ascii")}
        write_private(data / FILE_NAME, json.dumps(document, indent=2).encode())
        return credential

    @classmethod
    def load(cls, data: Path) -> OperatorCredential:
        """Read the file.

        Raises:
            Broken: when it is missing, open to others or damaged.
        """
        path = data / FILE_NAME
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes()
        except OSError as error:
            hint = "Is this the data directory of a control plane that was started with serve?"
            raise Broken(f"{path} cannot be read: {error.strerror}.", hint=hint) from None
        if mode & 0o077:
            raise Broken(f"{path} is open to other users (mode {mode:04o}).", hint=f"Run chmod 600 {path}.")
        try:
            document = json.loads(content)
            key = serialization.load_pem_private_key(document["key"].encode(), password=None)
            address, issuer, ca = str(document["address"]), str(document["issuer"]), str(document.get("ca", ""))
        except (ValueError, TypeError, KeyError, AttributeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Broken(f"{path} is damaged.", hint="Start serve again; it writes the file.")
        return cls(address, issuer, SigningKey.of(key), ca)

    def headers(self, now: float, scopes: frozenset[str] = OPERATOR_SCOPES) -> dict[str, str]:
        """Return the headers that authenticate requests within the next minute."""
        token = tokens.issue_operator_token(
            self.key, issuer=self.issuer, name=_NAME, scopes=scopes, now=now, jti=secrets.token_urlsafe(16)
        )
        return {"Authorization": f"Bearer {token}"}
