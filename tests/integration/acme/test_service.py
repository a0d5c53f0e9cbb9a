"""The whole installation with a real ACME server, whose challenges go through the real Traefik."""

from __future__ import annotations

import json
import socket
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from reconciler.app.acme_challenges import PORT_FILE
from tests.support.acme_site import HOST, ISSUED, ZONE, another_clock, site
from tests.support.dns_server import dns_server
from tests.support.waiting import wait_for

CHALLENGES = "/.well-known/acme-challenge/"
ROOT = Path(__file__).parents[3]
HOOK = """\
#!{python}
import asyncio, sys
sys.path.insert(0, "{root}")
from pydantic import SecretStr
from reconciler.pki.acme.dns01 import Dns01, NameServer, Rfc2136, UpdateKey
from reconciler.pki.acme.solver import Challenge
verb, domain, value = sys.argv[1:]
key = UpdateKey("{names.key.name}", SecretStr("{secret}"))
with open("{called}", "a") as file:
    print(verb, domain, file=file)
dns = Dns01(Rfc2136(NameServer("127.0.0.1", {names.address.port}), key))
asyncio.run(getattr(dns, verb)(Challenge(domain, "", "", value)))
"""


def test_a_certificate_for_a_host_in_the_repo_is_ordered_and_served(tmp_path: Path) -> None:
    """From the commit to a handshake that openssl verifies against the server's root; the route waits meanwhile."""
    with site(tmp_path) as one:
        one.start(one.files())
        one.until_verified()
        assert one.plane.front is not None
        assert one.plane.front.get(HOST, tls=True).json()["backend"] == "app"
        assert one.plane.front.get(HOST, "/.well-known/acme-challenge/unknown").text == "not found\n"
        assert one.plane.metric("cloudlunacy_acme_orders_total") == 1
        wait_for(lambda: one.status()["probe"], 10)
        said = one.status()
        (probe,) = said["probe"]
        assert (probe["name"], probe["matches"], probe["fingerprint"]) == (HOST, True, one.fingerprint())
        assert (said["state"], said["fingerprint"]) == ("Good", probe["fingerprint"])
        assert said["directory"] == one.pebble.url
        shown = one.plane.cli("certificate", "show", "shop")
        assert f"SHA-256      {one.fingerprint()}" in shown.stdout, shown.stderr
        assert "front-1      shows it" in shown.stdout
        assert "shop" in one.plane.cli("certificate", "list").stdout


def test_a_certificate_is_renewed_in_time_while_the_clock_runs_fast(tmp_path: Path) -> None:
    """Of an hour of validity, half passes and the other half runs: another certificate is served before the first has
    ended, and no client is refused meanwhile."""
    with site(tmp_path, lifetime=3600) as one:
        one.start(one.files())
        one.until_verified()
        first = one.leaf()
        one.plane.stop()
        one.plane.environment |= another_clock(FAKETIME="+29m x20")
        one.plane.start(wait=False)  # whoever has the right time does not trust its own certificate for long

        def renewed() -> bool:
            time.sleep(0.3)  # between clients; what comes out does not hang on it
            assert one.verified(), one.plane.log()[-3000:]
            return one.leaf() != first

        wait_for(renewed, 120)
        assert one.verified()
        issued = [datetime.fromisoformat(line["time"]) for line in one.logged(ISSUED)]
        begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
        assert begins + (ends - begins) / 2 <= issued[1] < ends


@pytest.mark.parametrize("percent", [20, 50])
def test_refused_nonces_hold_no_certificate_up(tmp_path: Path, percent: int) -> None:
    """With every fifth and every second nonce refused, the certificates of five hosts come, each with one order."""
    hosts = [f"n{number}.example.test" for number in range(5)]
    with site(tmp_path, nonce_reject=percent) as one:
        one.start(one.files(*hosts))
        for host in hosts:
            one.until_verified(host)
        assert one.plane.metric("cloudlunacy_acme_orders_total") == 5
        assert one.pebble.log().count("POST /order-plz -> calling handler()") >= 5
        for file in (one.plane.data / "keys" / "acme").glob("*.ledger.json"):
            histories = json.loads(file.read_text())["histories"]
            assert [len(history["orders"]) for history in histories.values()] == [1] * 5


def test_a_server_that_is_killed_in_the_middle_of_an_order_is_gone_back_to(tmp_path: Path) -> None:
    """It comes back without accounts, orders and its old root: what holds the certificate up is said meanwhile, and the
    attempt after the back-off brings it, with nothing done by anybody."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    with site(tmp_path, sleep=3) as one:
        one.plane.environment |= another_clock(FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_CACHE_DURATION="1")
        one.start(one.files())
        wait_for(lambda: "POST /chalZ/" in one.pebble.log(), 60)
        one.pebble.kill()
        wait_for(lambda: one.status()["reason"] not in ("missing", "OrderUnderWay"), 60)
        said = one.status()
        assert (said["state"], said["reason"]) == ("Pending", "AcmeUnreachable")
        assert said["nextLook"] is not None
        listed = one.plane.cli("certificate", "list").stdout
        assert f"The ACME server 127.0.0.1:{one.pebble.port} could not be reached" in listed
        assert not one.plane.front.get(HOST, tls=True).is_success  # type: ignore[union-attr]
        one.pebble.start()
        clock.write_text("+70s\n")
        one.until_verified(deadline=90)


def test_a_wildcard_is_proven_by_a_dynamic_update(tmp_path: Path) -> None:
    """The machine's settings name the server and the key of a zone; a host below the wildcard is served with it, and
    nothing of the key is in the log or in what the API says."""
    with dns_server(tmp_path / "named", ZONE) as names, site(tmp_path, resolver_port=names.address.port) as one:
        secret = names.key.secret.get_secret_value()
        one.also(
            f'[[dns]]\nzones = ["{ZONE}"]\nserver = "{names.address}"\n'
            f'key-name = "{names.key.name}"\nkey-secret = "{secret}"\n'
        )
        one.start(one.files(f"*.apps.{ZONE}"))
        one.until_verified(f"web.apps.{ZONE}")
        assert names.txt(f"_acme-challenge.apps.{ZONE}") == set()
        assert "acme-challenge" not in one.plane.published.read_text()  # nobody asks over HTTP
        said = json.dumps(one.plane.ask("/certificates")) + one.plane.log()
        assert secret not in said


def test_a_host_is_proven_by_a_program_of_the_operator(tmp_path: Path) -> None:
    """The hook of the settings writes the record; the fleet file says that names are proven by DNS."""
    with dns_server(tmp_path / "named", ZONE) as names, site(tmp_path, resolver_port=names.address.port) as one:
        hook = tmp_path / "hook"
        secret, called = names.key.secret.get_secret_value(), tmp_path / "called"
        hook.write_text(HOOK.format(python=sys.executable, root=ROOT, names=names, secret=secret, called=called))
        hook.chmod(0o700)
        one.also(f'[[dns]]\nhook = "{hook}"\n')
        one.start(one.files(f"shop.{ZONE}"), challenge="dns-01")
        one.until_verified(f"shop.{ZONE}")
        assert called.read_text().split() == ["present", f"shop.{ZONE}", "cleanup", f"shop.{ZONE}"]


def test_no_route_takes_a_challenge(tmp_path: Path) -> None:
    """A team has every path of the host over plain HTTP, another route asks for the path itself: the former gets all
    but the challenges, the latter is refused with a sentence, and the certificate comes."""
    with site(tmp_path) as one:
        greedy = one.route("greedy", HOST, tls={"mode": "none"}, paths=[{"prefix": "/"}], headers=[])
        thief = one.route("thief", "thief.example.test", tls={"mode": "none"}, paths=[{"prefix": CHALLENGES}])
        one.start({**one.files(), "routes/shop/greedy.yaml": greedy, "routes/shop/thief.yaml": thief})
        one.until_verified()
        assert one.plane.front is not None
        assert one.plane.front.get(HOST).json()["path"] == "/"
        assert one.plane.front.get(HOST, "/.well-known/other").json()["path"] == "/.well-known/other"
        for host in (HOST, "thief.example.test", "nobody.example.test"):
            for path in (f"{CHALLENGES}token", f"{CHALLENGES}%74oken", f"{CHALLENGES}a/../token"):
                assert one.plane.front.get(host, path).text == "not found\n"
        (refused,) = [one for one in one.plane.ask("/status")["quarantined"] if one["file"].endswith("thief.yaml")]
        assert refused["code"] == "path-reserved"
        assert not [path for path in one.backend.requests if "acme-challenge" in path]


def test_a_front_that_leads_nowhere_costs_no_attempt_at_the_server(tmp_path: Path) -> None:
    """While another router takes the path, the server is not told to look: the delay names the front. Once that router
    is gone, a person's word brings the certificate without waiting for the back-off."""
    with site(tmp_path) as one:
        assert one.plane.front is not None
        other = one.plane.front.directory / "other.yml"
        other.write_text(
            "http: {routers: {other: {rule: PathPrefix(`/`), entryPoints: [web], priority: 2100000000, service: other}}"
            f", services: {{other: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:{one.backend.port}'}}]}}}}}}}}"
        )
        one.start(one.files())
        wait_for(lambda: one.status()["reason"] == "ChallengeNotServed", 60, what=one.plane.log()[-3000:])
        assert 'The front "front-1" does not lead /.well-known/acme-challenge/' in one.status()["message"]
        assert "POST /chalZ/" not in one.pebble.log()
        other.unlink()
        again = one.plane.cli("certificate", "retry", "shop")
        assert again.returncode == 0, again.stderr
        one.until_verified(deadline=40)
        refused = one.plane.cli("certificate", "retry", "shop")
        assert (refused.returncode, refused.stderr.partition(".")[0]) == (
            1,
            'cloudlunacy: no order of a certificate "shop" waits',
        )


def test_fronts_follow_a_listener_that_had_to_move(tmp_path: Path) -> None:
    """Somebody took its port while it was away: the fronts get another generation that leads to the new one."""
    with site(tmp_path) as one:
        one.start(one.files())
        one.until_verified()
        one.plane.stop()
        port = int((one.plane.data / PORT_FILE).read_text())
        assert f"http://127.0.0.1:{port}" in one.plane.published.read_text()
        with socket.create_server(("127.0.0.1", port)):
            one.plane.start()
            now = int((one.plane.data / PORT_FILE).read_text())
            assert now != port
            wait_for(lambda: f"http://127.0.0.1:{now}" in one.plane.published.read_text(), 20)
            one.plane.push(one.files("late.example.test"))
            one.until_verified("late.example.test")


def test_a_control_plane_that_is_killed_in_the_middle_of_an_order_goes_on(tmp_path: Path) -> None:
    """The next start brings the certificate at once, for the key that waited on the disk. The order is the same one,
    unless the server has looked in vain meanwhile; what was ordered is counted, and nothing twice."""
    with site(tmp_path, sleep=5) as one:
        one.start(one.files())
        wait_for(lambda: "POST /chalZ/" in one.pebble.log(), 60)
        one.plane.kill()
        waiting = one.plane.data / "keys" / "certificates" / "shop.waiting.pem"
        key = load_pem_private_key(waiting.read_bytes(), None).public_key()
        one.plane.start()
        one.until_verified()
        assert one.leaf().public_key() == key
        assert not waiting.exists()
        (ledger,) = (one.plane.data / "keys" / "acme").glob("*.ledger.json")
        (history,) = json.loads(ledger.read_text())["histories"].values()
        placed = one.pebble.log().count("POST /order-plz -> calling handler()")
        assert len(history["orders"]) == placed <= 2
