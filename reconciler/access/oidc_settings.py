"""Which provider people log in with. The file that ``CLOUDLUNACY_OIDC_FILE`` names, TOML::

    issuer = "https://login.example.com/realms/main"      # exactly as the provider writes it
    client-id = "cloudlunacy"
    client-secret-file = "/etc/cloudlunacy/oidc-secret"   # without it: a public client, which has PKCE alone
    scopes = ["openid", "profile", "email", "groups"]     # what is asked for; openid always is
    groups-claim = "groups"                               # or a path, such as realm_access.roles
    label = "Example"                                     # what the page to log in says
    ca-file = "/etc/cloudlunacy/internal-ca.pem"          # roots of the provider; without it the system's

The provider is told ``<public URL>/login/oidc/callback`` as redirect URI. What groups may do stands in the fleet file.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from reconciler.errors import Broken
from reconciler.pki.private_files import read_private
from reconciler.pki.settings_file import FileSettings, read_settings_file

VARIABLE: Final = "CLOUDLUNACY_OIDC_FILE"
HINT: Final = f"{VARIABLE} names it; docs/access.md shows what it holds."
Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[\x20-\x7e]+$")]
ScopeName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
"""RFC 6749, 3.3."""


class OidcSettings(FileSettings):
    """The whole file."""

    issuer: Text
    client_id: Text
    client_secret_file: Path | None = None
    scopes: Annotated[tuple[ScopeName, ...], Field(max_length=32)] = ("openid", "profile", "email", "groups")
    groups_claim: Text = "groups"
    label: Text | None = None
    ca_file: Path | None = None

    @field_validator("issuer")
    @classmethod
    def _is_safe(cls, issuer: str) -> str:
        if not is_safe(issuer) or urlsplit(issuer).query or urlsplit(issuer).fragment:
            raise ValueError("is no https URL without query and fragment")
        return issuer

    @property
    def host(self) -> str:
        """The issuer's host, with its port where it is not the usual one."""
        return urlsplit(self.issuer).netloc


def is_safe(url: str) -> bool:
    """Say whether what is sent to a URL stays secret: by TLS, or on the way to this machine itself."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or not url.isprintable() or "\\" in url or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings(path: Path | None) -> OidcSettings | None:
    """Read the file; None where there is none.

    Raises:
        Broken: it cannot be read, or does not say what it should. No message repeats a value.
    """
    if path is None:
        return None
    settings = read_settings_file(path, OidcSettings, hint=HINT, private=False)  # its secret is elsewhere
    read_secret(settings)
    return settings


def read_secret(settings: OidcSettings) -> str:
    """Return the client's secret; empty for a public client. It is read anew each time, so that it can be replaced.

    Raises:
        Broken: the file cannot be read, or is open to others.
    """
    path = settings.client_secret_file
    if path is None:
        return ""
    try:
        secret = read_private(path).decode("ascii").strip()
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror}.", hint=f"{VARIABLE} leads to it.") from None
    except ValueError:
        secret = ""
    if not secret or not secret.isprintable():
        raise Broken(f"{path} holds no secret.", hint="It should hold one line.")
    return secret
