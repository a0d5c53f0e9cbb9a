"""The authority under openssl's eyes, and under kill -9."""

from __future__ import annotations

import datetime as dt
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from reconciler.pki.authority import profiles
from reconciler.pki.authority.authority import Authority, Leaf
from reconciler.pki.authority.inventory import Inventory
from reconciler.pki.authority.names import Permitted, permitted_for
from reconciler.pki.authority.pairs import key_pem
from reconciler.pki.authority.profiles import Issuer, Profile
from tests.support.certificates import KEY, NOW, names, new_leaf, text
from tests.support.openssl import run, verify
from tests.support.orphans import tied
from tests.support.waiting import wait_for

FLEET = permitted_for(listen=["127.0.0.1", "::1", "localhost"], domain="fleet.test", hostnames=["*.shop.example"])
AGENT = profiles.agent("fleet.test", "vps-1")
DAY = dt.timedelta(days=1)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open_or_found(tmp_path / "keys", permitted=FLEET, now=NOW)


def issue(authority: Authority, profile: Profile) -> Leaf:
    return authority.issue(profile, KEY.public_key(), holder="test", now=NOW)


@pytest.mark.parametrize(
    ("profile", "purpose", "hostname", "address"),
    [
        (AGENT, "sslserver", "vps-1.agents.fleet.test", ""),
        (AGENT, "sslclient", "", ""),
        (profiles.server(names("127.0.0.1", "localhost")), "sslserver", "localhost", ""),
        (profiles.server(names("127.0.0.1")), "sslserver", "", "127.0.0.1"),
        (profiles.server(names("::1")), "sslserver", "", "::1"),
        (profiles.server(names("*.app.fleet.test")), "sslserver", "web.app.fleet.test", ""),
        (profiles.server(names(f"{'a' * 60}.shop.example")), "sslserver", f"{'a' * 60}.shop.example", ""),
        (profiles.service(names("db.shop.example"), DAY), "sslserver", "db.shop.example", ""),
    ],
    ids=["agent", "agent as client", "server", "address", "IPv6", "wildcard", "long name", "service"],
)
def test_openssl_takes_what_is_issued(
    authority: Authority, tmp_path: Path, profile: Profile, purpose: str, hostname: str, address: str
) -> None:
    """Strictly (RFC 5280), for its purpose and its name, with nothing but the bundle."""
    leaf = issue(authority, profile)
    verdict = verify(
        tmp_path, leaf.pem, authority.bundle().pem, at=NOW, purpose=purpose, hostname=hostname, address=address
    )

    assert verdict.good, verdict.text


@pytest.mark.parametrize(
    ("profile", "what", "sentence"),
    [
        (profiles.server(names("fleet.test")), {"hostname": "web.fleet.test"}, "hostname mismatch"),
        (profiles.server(names("fleet.test")), {"purpose": "sslclient"}, "(unsuitable|unsupported).* purpose"),
        (AGENT, {"purpose": "smimesign"}, "(unsuitable|unsupported).* purpose"),
        (AGENT, {"at": NOW + 2 * DAY}, "certificate has expired"),
        (AGENT, {"at": NOW - dt.timedelta(minutes=6)}, "not yet valid"),
    ],
    ids=["wrong name", "a server as client", "mail", "expired", "too early"],
)
def test_openssl_refuses_other_uses(
    authority: Authority, tmp_path: Path, profile: Profile, what: dict[str, object], sentence: str
) -> None:
    """Wrong name, wrong purpose, wrong time."""
    leaf = issue(authority, profile)
    verdict = verify(tmp_path, leaf.pem, authority.bundle().pem, **{"at": NOW, **what})  # type: ignore[arg-type]

    assert not verdict.good
    assert re.search(sentence, verdict.text), verdict.text


@pytest.mark.parametrize("minutes", [-4, 4])
def test_a_verifier_whose_clock_is_minutes_off_takes_a_fresh_leaf(
    authority: Authority, tmp_path: Path, minutes: int
) -> None:
    """The five minutes before the issue are for clocks that are behind."""
    leaf = issue(authority, AGENT)
    verdict = verify(tmp_path, leaf.pem, authority.bundle().pem, at=NOW + dt.timedelta(minutes=minutes))

    assert verdict.good, verdict.text


def test_another_fleets_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    """The same names, another root."""
    other = Authority.open_or_found(tmp_path / "other", permitted=FLEET, now=NOW)
    verdict = verify(tmp_path, issue(authority, AGENT).pem, other.bundle().pem, at=NOW)

    assert not verdict.good
    assert "unable to get" in verdict.text or "self-signed certificate in certificate chain" in verdict.text


@pytest.mark.parametrize(
    "stolen",
    [
        profiles.server(names("bank.example")),
        profiles.server(names("example")),
        profiles.server(names("10.0.0.1")),
        profiles.server(names(uris=("spiffe://bank.example/agent/vps-1",))),
        profiles.server(names("fleet.test", "bank.example")),
    ],
    ids=lambda profile: profile.names.texts()[-1],
)
def test_a_stolen_intermediate_speaks_for_nobody_else(authority: Authority, tmp_path: Path, stolen: Profile) -> None:
    """Whoever has its key can sign anything; verifiers refuse what the fleet may not name."""
    pair = authority.pairs("intermediate")["current"]
    assert pair.key is not None
    forged = new_leaf(stolen, Issuer(pair.certificate, pair.key))
    verdict = verify(tmp_path, text(forged, pair.certificate), authority.bundle().pem, at=NOW)

    assert not verdict.good
    assert "permitted subtree violation" in verdict.text or "excluded subtree violation" in verdict.text


def test_a_stolen_intermediate_makes_no_authority(authority: Authority, tmp_path: Path) -> None:
    """pathLen 0: what it signs cannot sign on."""
    pair = authority.pairs("intermediate")["current"]
    assert pair.key is not None
    below = profiles.intermediate(KEY.public_key(), Issuer(pair.certificate, pair.key), Permitted(), serial=3, now=NOW)
    leaf = new_leaf(AGENT, Issuer(below, KEY))
    verdict = verify(tmp_path, text(leaf, below, pair.certificate), authority.bundle().pem, at=NOW)

    assert not verdict.good
    assert "path length constraint exceeded" in verdict.text


def test_a_wider_intermediate_asks_nothing_of_verifiers(authority: Authority, tmp_path: Path) -> None:
    """Former and new leaves are good by the same bundle, each with either intermediate."""
    bundle, former = authority.bundle().pem, issue(authority, AGENT)
    authority.ensure_permitted(permitted_for(hostnames=["new.example"]), NOW)
    new = issue(authority, profiles.server(names("new.example")))
    mixed = text(former.certificate, new.chain[0])

    assert authority.bundle().pem == bundle
    for chain in (former.pem, new.pem, mixed):
        assert verify(tmp_path, chain, bundle, at=NOW).good


def test_outsiders_learn_of_revocations_from_the_list(authority: Authority, tmp_path: Path) -> None:
    """openssl reads it, checks its signature and refuses what stands on it; a list of before takes it still."""
    good, bad = issue(authority, AGENT), issue(authority, AGENT)
    before = authority.crl(NOW)
    authority.revoke(bad.serial, "keyCompromise", NOW)
    after, roots = authority.crl(NOW), authority.bundle().pem
    shown = run("crl", "-inform", "DER", "-noout", "-text", content=after).text

    assert verify(tmp_path, bad.pem, roots, at=NOW, crl=before).good
    assert verify(tmp_path, good.pem, roots, at=NOW, crl=after).good
    refused = verify(tmp_path, bad.pem, roots, at=NOW, crl=after)
    assert not refused.good
    assert "certificate revoked" in refused.text
    assert "Key Compromise" in shown
    assert f"{bad.serial:X}" in shown


def test_a_list_without_a_successor_runs_out(authority: Authority, tmp_path: Path) -> None:
    """After seven days nobody takes it for the newest any more."""
    leaf = issue(authority, profiles.server(names("fleet.test")))
    verdict = verify(tmp_path, leaf.pem, authority.bundle().pem, at=NOW + 8 * DAY, crl=authority.crl(NOW))

    assert not verdict.good
    assert "CRL has expired" in verdict.text


@pytest.mark.parametrize("trusted", [True, False])
def test_python_connects_by_the_bundle_alone(tmp_path: Path, trusted: bool) -> None:
    """A whole handshake: the chain that is presented, the name that is asked for; another fleet's bundle is refused."""
    now = dt.datetime.now(dt.UTC)
    authority = Authority.open_or_found(tmp_path / "keys", permitted=FLEET, now=now)
    other = Authority.open_or_found(tmp_path / "other", permitted=FLEET, now=now)
    leaf = authority.issue(profiles.server(names("localhost")), KEY.public_key(), holder="server", now=now)
    pair = tmp_path / "server.pem"
    pair.write_bytes(leaf.pem.encode() + key_pem(KEY))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair)
    client = ssl.create_default_context(cadata=(authority if trusted else other).bundle().pem)

    if trusted:
        assert _handshake(client, server, "localhost") is not None
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            _handshake(client, server, "vps-1.agents.fleet.test")
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
            _handshake(client, server, "localhost")


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> dict[str, object] | None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=name)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for side in (one, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return one.getpeercert()  # type: ignore[return-value]


ENDLESS = """
import datetime, sys
from pathlib import Path
from reconciler.pki.authority import profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from tests.support.certificates import KEY

now = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
authority = Authority.open_or_found(Path(sys.argv[1]), permitted=permitted_for(domain="fleet.test"), now=now)
for number in range(1_000_000):
    leaf = authority.issue(profiles.agent("fleet.test", "a"), KEY.public_key(), holder="agent/a", now=now)
    print(f"{leaf.serial:x}", flush=True)
    if number % 3 == 0:
        authority.revoke(leaf.serial, "superseded", now)
        print(f"revoked {leaf.serial:x}", flush=True)
    authority.crl(now)
"""


@pytest.mark.parametrize("lines", [0, 1, 5, 40])
def test_whatever_was_handed_out_before_a_kill_is_listed(tmp_path: Path, lines: int) -> None:
    """SIGKILL at any moment: every serial that left is in the inventory, every revocation holds, and it goes on."""
    keys, out = tmp_path / "keys", tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(tied([sys.executable, "-c", ENDLESS, str(keys)]), stdout=file, cwd=ROOT)
        try:
            wait_for(lambda: len(out.read_bytes().splitlines()) >= lines and keys.exists(), 60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    said = [line.split() for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
    authority = Authority.open_or_found(keys, permitted=permitted_for(domain="fleet.test"), now=NOW)
    inventory = Inventory(keys / "inventory.jsonl")
    on_list = {one.serial_number for one in x509.load_der_x509_crl(authority.crl(NOW))}

    assert len(said) >= lines
    assert all(inventory.find(int(words[-1], 16)) for words in said)
    assert on_list >= {int(words[-1], 16) for words in said if words[0] == "revoked"}
    assert authority.issue(AGENT, KEY.public_key(), holder="agent/a", now=NOW)
    assert authority.counts(NOW)["root"] == {"good": 1}


CUT = """
import os, signal
from tests.support.certificates import NOW
sync = os.fsync

def die(descriptor):
    sync(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)

authority = Authority(Path(sys.argv[1]))
os.fsync = die
authority.issue(profiles.agent("fleet.test", "a"), KEY.public_key(), holder="test", now=NOW)
print("handed out")
"""


def test_a_certificate_is_on_the_disk_before_it_is_seen(tmp_path: Path) -> None:
    """A crash between the inventory and the hand-out leaves a line without a certificate, never the reverse."""
    authority = Authority.open_or_found(tmp_path / "keys", permitted=FLEET, now=NOW)
    script = ENDLESS.partition("now =")[0] + CUT
    words = [sys.executable, "-c", script, str(tmp_path / "keys")]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    latest = authority.latest("test")

    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
    assert latest is not None
    assert authority.revoke(latest.serial, "unspecified", NOW).revoked_at == NOW
