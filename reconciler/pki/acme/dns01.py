"""``dns-01`` (RFC 8555, 8.4) by dynamic update (RFC 2136), signed with TSIG (RFC 8945).

1. The server that takes updates is asked for the zone: the SOA of the record's name, or of the nearest name above it.
2. The TXT value is added beside those that are there: ``x`` and ``*.x`` are proved by two values of one record.
3. Every server of ``answered_by`` is asked, over TCP and without recursion, until each answers the value.

Afterwards that value is deleted and no other.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
from pydantic import SecretStr

from reconciler.errors import Broken, Rejected, Transient
from reconciler.pki.acme.solver import Challenge
from schemas.text import visible

ALGORITHMS: Final = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
TTL: Final = 30
POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class NameServer:
    """An address and a port."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpdateKey:
    """A TSIG key: its name, and its secret in base64, as ``tsig-keygen`` prints them."""

    name: str
    secret: SecretStr
    algorithm: str = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class Rfc2136:
    """Where updates go. ``answered_by``: the public servers of the zone, when they are others. Times in seconds."""

    server: NameServer
    key: UpdateKey
    answered_by: tuple[NameServer, ...] = ()
    seconds: float = 10.0
    """One exchange."""
    visible_seconds: float = 60.0
    """Until all servers answer."""


class Dns01:
    """A solver.

    Raises:
        Broken: the key of the settings is none.
    """

    type: Final = "dns-01"

    def __init__(self, settings: Rfc2136) -> None:
        self._settings = settings
        if settings.key.algorithm not in ALGORITHMS:
            raise Broken(
                f"The TSIG algorithm {visible(settings.key.algorithm)} is not taken.",
                hint=f"Use {', '.join(ALGORITHMS)}.",
            )
        try:
            secret = base64.b64decode(settings.key.secret.get_secret_value(), validate=True)
            self._key = dns.tsig.Key(dns.name.from_text(settings.key.name), secret, settings.key.algorithm)
        except (ValueError, dns.exception.DNSException):
            raise Broken(
                "The TSIG key for dynamic updates is none: a name, and a secret in base64.",
                hint="Copy both from what tsig-keygen prints.",
            ) from None

    async def present(self, challenge: Challenge) -> None:
        """Add the value, and wait until it is answered."""
        zone = await self._zone(challenge.record)
        update = dns.update.UpdateMessage(zone, keyring=self._key)
        update.add(dns.name.from_text(challenge.record), TTL, dns.rdatatype.TXT, challenge.txt_value)
        await self._update(update, challenge)
        await self._wait(challenge)

    async def cleanup(self, challenge: Challenge) -> None:
        """Delete the value."""
        zone = await self._zone(challenge.record)
        update = dns.update.UpdateMessage(zone, keyring=self._key)
        update.delete(dns.name.from_text(challenge.record), dns.rdatatype.TXT, challenge.txt_value)
        await self._update(update, challenge)

    async def _zone(self, record: str) -> dns.name.Name:
        """Find the zone that a record is in, at the server that takes updates for it."""
        name = dns.name.from_text(record)
        query = dns.message.make_query(name, dns.rdatatype.SOA, flags=dns.flags.Flag(0))
        response = await self._ask(self._settings.server, query, f"the zone of {record}")
        for section in (response.answer, response.authority):
            for found in section:
                if found.rdtype == dns.rdatatype.SOA and name.is_subdomain(found.name):
                    return found.name
        raise Rejected(
            f"The name server {self._settings.server} has no zone for {record} "
            f"({dns.rcode.to_text(response.rcode())}).",
            reason="DnsZoneMissing",
            hint="Name the primary server of the zone as the one that takes updates.",
        )

    async def _update(self, update: dns.update.UpdateMessage, challenge: Challenge) -> None:
        response = await self._ask(self._settings.server, update, f"an update of {challenge.record}")
        code = response.rcode()
        if code == dns.rcode.NOERROR:
            return
        message = f"The name server {self._settings.server} refused an update of {challenge.record}"
        said = f"{message}: {dns.rcode.to_text(code)}."
        if code == dns.rcode.SERVFAIL:
            raise Transient(said, reason="DnsUpdateFailed")
        raise Rejected(
            said, reason="DnsUpdateRefused", hint="The key must be allowed to update TXT records of this name."
        )

    async def _wait(self, challenge: Challenge) -> None:
        servers = self._settings.answered_by or (self._settings.server,)
        for server in servers:
            try:
                async with asyncio.timeout(self._settings.visible_seconds):
                    while True:
                        if await self._answers(server, challenge):
                            break
                        await asyncio.sleep(POLL_SECONDS)
            except TimeoutError:
                raise Transient(
                    f"The name server {server} did not answer the new value of {challenge.record} within "
                    f"{self._settings.visible_seconds:g} s.",
                    reason="DnsNotVisible",
                ) from None

    async def _answers(self, server: NameServer, challenge: Challenge) -> bool:
        query = dns.message.make_query(challenge.record, dns.rdatatype.TXT, flags=dns.flags.Flag(0))
        response = await self._ask(server, query, f"the record {challenge.record}")
        values = (
            b"".join(value.strings) for found in response.answer if found.rdtype == dns.rdatatype.TXT for value in found
        )
        return challenge.txt_value.encode() in values

    async def _ask(self, server: NameServer, message: dns.message.Message, doing: str) -> dns.message.Message:
        async with _translated(server, doing):
            return await dns.asyncquery.tcp(message, server.address, timeout=self._settings.seconds, port=server.port)


@asynccontextmanager
async def _translated(server: NameServer, doing: str) -> AsyncIterator[None]:
    try:
        yield
    except (dns.tsig.PeerError, dns.tsig.BadSignature, dns.tsig.BadTime, dns.tsig.BadKey) as error:
        raise Rejected(
            f"The name server {server} and we do not agree on the TSIG key, when it was asked for {doing} "
            f"({type(error).__name__}).",
            reason="DnsKeyRefused",
            hint="Compare name, algorithm and secret of the key, and the clocks of both machines.",
        ) from None
    except dns.exception.Timeout:
        raise Transient(
            f"The name server {server} did not answer in time, when it was asked for {doing}.", reason="DnsUnreachable"
        ) from None
    except (OSError, EOFError, ssl.SSLError) as error:
        why = visible(getattr(error, "strerror", None) or "the connection ended")
        raise Transient(
            f"The name server {server} could not be asked for {doing}: {why}.", reason="DnsUnreachable"
        ) from None
    except (dns.exception.DNSException, ValueError) as error:
        raise Transient(
            f"The name server {server} answered something that is no DNS ({type(error).__name__}), when it was asked "
            f"for {doing}.",
            reason="DnsAnswerMalformed",
        ) from None
