"""Pairs for fronts, made by an authority that lives for one test run."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki.authority import pairs, profiles
from reconciler.pki.authority.names import Names, Permitted
from reconciler.pki.authority.profiles import Issuer, Profile
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.pki.renewal import INTERNAL, Source
from tests.support.certificates import NOW, new_intermediate, new_root


class FakeAuthority:
    """A root and an intermediate; issues without an inventory."""

    def __init__(self, domain: str = "cloudlunacy.test", now: dt.datetime = NOW) -> None:
        permitted = Permitted(dns=frozenset({domain, "test"}), hosts=frozenset({domain}))
        self.now = now
        self.root: Issuer = new_root(now)
        self.intermediate: Issuer = new_intermediate(self.root, permitted, now)

    @property
    def bundle(self) -> str:
        return pairs.pem(self.root.certificate).decode()

    def pair(
        self, *hosts: str, lifetime: dt.timedelta = dt.timedelta(days=90), source: Source = INTERNAL
    ) -> CertificatePair:
        return self._issue(profiles.server(Names.of(hosts), lifetime), source)

    def client(self, *hosts: str) -> CertificatePair:
        """What a front proves itself with."""
        return self._issue(profiles.client(Names.of(hosts)), INTERNAL)

    def chain_for(self, key: ec.EllipticCurvePrivateKey, *hosts: str) -> str:
        """A chain for somebody's key."""
        profile = profiles.server(Names.of(hosts), dt.timedelta(days=90))
        serial = x509.random_serial_number()
        leaf = profiles.leaf(profile, key.public_key(), self.intermediate, serial=serial, now=self.now)
        return pairs.pem(leaf, self.intermediate.certificate).decode()

    def context_of_agent(self, folder: Path, name: str, domain: str = "cloudlunacy.test") -> ssl.SSLContext:
        """What an agent presents to a front."""
        pair = self._issue(profiles.agent(domain, name), INTERNAL)
        file = folder / f"{name}.pem"
        file.write_text(pair.chain + pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _issue(self, profile: Profile, source: Source) -> CertificatePair:
        key, serial = pairs.new_key(), x509.random_serial_number()
        leaf = profiles.leaf(profile, key.public_key(), self.intermediate, serial=serial, now=self.now)
        chain = pairs.pem(leaf, self.intermediate.certificate, self.root.certificate).decode()
        return CertificatePair.read(chain, pairs.key_pem(key).decode(), source)
