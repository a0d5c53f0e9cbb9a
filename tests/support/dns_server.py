"""A real name server (BIND) on a free loopback port, with one zone that takes updates signed with one TSIG key."""

from __future__ import annotations

import secrets
import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
from pydantic import SecretStr

from reconciler.pki.acme.dns01 import NameServer, UpdateKey
from tests.support.parts import require
from tests.support.pebble import Program
from tests.support.ports import free_port
from tests.support.waiting import wait_for

ZONE_FILE = """\
$TTL 60
@ IN SOA ns.{zone}. hostmaster.{zone}. (1 60 60 600 60)
@ IN NS ns.{zone}.
ns IN A 127.0.0.1
* IN A 127.0.0.1
"""
CONFIG = """\
options {{
    directory "{folder}";
    pid-file none;
    session-keyfile none;
    managed-keys-directory "{folder}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
}};
controls {{ }};
key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "{zone}" {{
    type primary;
    file "{folder}/zone";
    update-policy {{ deny {key} name _acme-challenge.{zone}. TXT; grant {key} wildcard *.{zone}. TXT; }};
}};
"""


class DnsServer:
    """A running ``named``. Only TXT records below the zone can be updated, and not ``_acme-challenge`` of the zone."""

    def __init__(self, folder: Path, zone: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.zone = zone
        self.key = UpdateKey("acme-key", SecretStr(b64encode(secrets.token_bytes(32)).decode()))
        self.address = NameServer("127.0.0.1", free_port())
        (folder / "zone").write_text(ZONE_FILE.format(zone=zone))
        config = folder / "named.conf"
        config.write_text(
            CONFIG.format(
                folder=folder,
                port=self.address.port,
                key=self.key.name,
                secret=self.key.secret.get_secret_value(),
                zone=zone,
            )
        )
        # a copy: where AppArmor confines the program that the package installs, it may not read this folder
        program = Path(shutil.copy(require("named"), folder / "named"))
        self._program = Program(folder / "named.log", [program, "-g", "-4", "-n", "1", "-c", config], {})
        wait_for(self._answers, 15, what=f"named\n{self._program.log()[-2000:]}")

    def _answers(self) -> bool:
        assert self._program.running(), self._program.log()[-2000:]
        with suppress(OSError, EOFError, dns.exception.DNSException):
            self.txt(f"nothing.{self.zone}")
            return True
        return False

    def txt(self, record: str) -> set[str]:
        """The values of a TXT record."""
        query = dns.message.make_query(record, dns.rdatatype.TXT)
        answer = dns.query.tcp(query, self.address.address, timeout=5, port=self.address.port).answer
        values = (value for found in answer if found.rdtype == dns.rdatatype.TXT for value in found)
        return {b"".join(value.strings).decode() for value in values}

    def log(self) -> str:
        return self._program.log()

    def close(self) -> None:
        self._program.kill()


@contextmanager
def dns_server(folder: Path, zone: str) -> Iterator[DnsServer]:
    """Run a name server for ``zone``; every name in it is 127.0.0.1."""
    running = DnsServer(folder, zone)
    try:
        yield running
    finally:
        running.close()
