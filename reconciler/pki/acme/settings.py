"""What only the machine decides about ACME: whom to trust, accounts at servers that want one, name servers, hooks.

The file that ``CLOUDLUNACY_ACME_FILE`` names, TOML, readable by its owner alone, for it may hold secrets::

    [[directory]]
    url = "https://acme.internal.example/directory"
    ca-file = "/etc/cloudlunacy/internal-ca.pem"        # roots of the server; without it the system's
    key-id = "kid-1"                                    # external account binding (RFC 8555, 7.3.4)
    mac-key = "base64url"

    [[dns]]
    zones = ["example.com"]                             # names below these; without it all that no other entry has
    server = "192.0.2.53:53"                            # takes dynamic updates (RFC 2136)
    answered-by = ["198.51.100.1:53"]                   # the zone's public servers, where they are others
    key-name = "acme"
    key-secret = "base64"
    key-algorithm = "hmac-sha256"

    [[dns]]
    hook = "/usr/local/lib/cloudlunacy/dns-hook"        # instead of server and key

Which directory a certificate comes from, and how its names are proven, is said in the state repo.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator

from reconciler.desired.grammar import FORMS, Form, pattern_of
from reconciler.pki.settings_file import FileSettings, read_settings_file
from schemas.names import Hostname, HttpsUrl

VARIABLE: Final = "CLOUDLUNACY_ACME_FILE"
_MOST: Final = 64

Text = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Address = Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+)(:[0-9]{1,5})?$")]
"""An IP address, with a port where it is not 53. No name: it would have to be looked up at another server first."""
_FORMS: Final = {
    **FORMS,
    pattern_of(Address): Form("is no address: write an IP address, and a port where it is not 53", "192.0.2.53"),
}


class DirectorySettings(FileSettings):
    """One ACME server, by the URL of its directory."""

    url: HttpsUrl
    ca_file: Path | None = None
    key_id: Text | None = None
    mac_key: SecretStr | None = None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.key_id is None) != (self.mac_key is None):
            raise ValueError("key-id and mac-key go together")
        return self


class DnsSettings(FileSettings):
    """Who writes TXT records of some zones."""

    zones: Annotated[tuple[Hostname, ...], Field(max_length=256)] = ()
    server: Address | None = None
    answered_by: Annotated[tuple[Address, ...], Field(max_length=16)] = ()
    key_name: Text | None = None
    key_secret: SecretStr | None = None
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    hook: Path | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.hook is None) == (self.server is None):
            raise ValueError("write either hook or server")
        if self.server is not None and (self.key_name is None or self.key_secret is None):
            raise ValueError("server needs key-name and key-secret")
        return self


class AcmeSettings(FileSettings):
    """The whole file."""

    directory: Annotated[tuple[DirectorySettings, ...], Field(max_length=_MOST)] = ()
    dns: Annotated[tuple[DnsSettings, ...], Field(max_length=_MOST)] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        urls = [one.url for one in self.directory]
        zones = [zone for one in self.dns for zone in one.zones or ("",)]
        if len(set(urls)) < len(urls):
            raise ValueError("a directory is listed twice")
        if len(set(zones)) < len(zones):
            raise ValueError("a zone is listed twice, or there are two [[dns]] without zones")
        return self

    def directory_of(self, url: str) -> DirectorySettings:
        """Return what is known of a server; nothing is needed for one that the system's roots vouch for."""
        return next((one for one in self.directory if one.url == url), DirectorySettings(url=url))

    def dns_for(self, domain: str) -> int | None:
        """Return the index of the entry that writes the records of a domain: the one with the longest zone."""
        found = {zone: number for number, one in enumerate(self.dns) for zone in one.zones or ("",)}
        return next((found[zone] for zone in _zones(domain) if zone in found), None)


NOTHING: Final = AcmeSettings()


def _zones(domain: str) -> Iterable[str]:
    labels = domain.lower().split(".")
    return (".".join(labels[start:]) for start in range(len(labels) + 1))


def read_settings(path: Path | None) -> AcmeSettings:
    """Read the file.

    Raises:
        Broken: it is open to others, cannot be read, or does not say what it should. No message repeats a value.
    """
    if path is None:
        return NOTHING
    hint = f"{VARIABLE} names it; docs/certificates.md shows what it holds."
    return read_settings_file(path, AcmeSettings, hint=hint, forms=_FORMS)


def address_and_port(text: str) -> tuple[str, int]:
    """Take an :data:`Address` apart; without a port it is 53."""
    host, _, port = text.rpartition(":") if ":" in text and not text.endswith("]") else (text, "", "53")
    return host.strip("[]"), int(port)
