"""DNS-01 through a real name server and through a program of the operator."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from reconciler.errors import Broken, Rejected, Transient
from reconciler.pki.acme.client import AcmeClient, ClientLimits, OrderRequest
from reconciler.pki.acme.dns01 import Dns01, NameServer, Rfc2136, UpdateKey
from reconciler.pki.acme.hook import Hook, HookSettings
from reconciler.pki.acme.solver import Challenge
from reconciler.pki.acme.wire import Account, Directory
from tests.support.acme import Notes, verified
from tests.support.dns_server import DnsServer, dns_server
from tests.support.pebble import NameServer as EveryName
from tests.support.pebble import Pebble
from tests.support.ports import free_port
from tests.support.waiting import eventually, wait_for

ZONE = "dns.example.test"
KEY = ec.generate_private_key(ec.SECP256R1())
ACCOUNT = Account(ec.generate_private_key(ec.SECP256R1()), terms_agreed=True)
CHALLENGE = Challenge(f"shop.{ZONE}", "token", "token.thumbprint", "value-of-the-record")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    with dns_server(tmp_path_factory.mktemp("named"), ZONE) as running:
        yield running


def solver(names: DnsServer, **changed: object) -> Dns01:
    return Dns01(replace(Rfc2136(names.address, names.key), **changed))  # type: ignore[arg-type]


def test_a_wildcard_and_its_parent_are_proved_by_two_values_of_one_record(names: DnsServer, tmp_path: Path) -> None:
    """Pebble asks BIND for the record; afterwards nothing is left there."""

    async def scenario(server: Pebble) -> None:
        client = AcmeClient(
            Directory(server.url, server.files.certificate), ACCOUNT, limits=ClientLimits(poll_first=0.1)
        )
        wanted = (f"app.{ZONE}", f"*.app.{ZONE}", f"other.{ZONE}")
        chain = await client.obtain(OrderRequest(wanted, KEY, solver(names)), Notes())
        verified(tmp_path, chain, server.root(), f"app.{ZONE}", f"web.app.{ZONE}", f"other.{ZONE}", key=KEY)

    server = Pebble(tmp_path / "pebble", resolver_port=names.address.port)
    try:
        asyncio.run(scenario(server))
    finally:
        server.close()
    assert names.txt(f"_acme-challenge.app.{ZONE}") == set()
    assert names.txt(f"_acme-challenge.other.{ZONE}") == set()


def test_a_value_is_added_beside_others_and_alone_taken_away(names: DnsServer) -> None:
    """What somebody else wrote into the record stays."""

    async def scenario() -> None:
        dns = solver(names)
        other = replace(CHALLENGE, txt_value="of-somebody-else")
        await dns.present(other)
        await dns.present(CHALLENGE)
        await dns.present(CHALLENGE)
        assert names.txt(CHALLENGE.record) == {"of-somebody-else", "value-of-the-record"}
        await dns.cleanup(CHALLENGE)
        await dns.cleanup(CHALLENGE)
        assert names.txt(CHALLENGE.record) == {"of-somebody-else"}
        await dns.cleanup(other)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "key",
    [
        UpdateKey("acme-key", SecretStr("b3RoZXI=")),
        UpdateKey("other-key", SecretStr("b3RoZXI=")),
    ],
)
def test_a_wrong_key_is_told(names: DnsServer, key: UpdateKey) -> None:
    """Another secret or another name: a sentence about the key, which does not show it."""
    with pytest.raises(Rejected, match="do not agree on the TSIG key") as caught:
        asyncio.run(solver(names, key=key).present(CHALLENGE))
    assert caught.value.reason == "DnsKeyRefused"
    assert "b3RoZXI" not in str(caught.value)
    assert "b3RoZXI" not in repr(key)


def test_an_update_that_the_key_may_not_make_is_told(names: DnsServer) -> None:
    """The zone's own name is not among what the key may write: REFUSED, with what to do."""
    with pytest.raises(Rejected, match=rf"refused an update of _acme-challenge\.{ZONE}\.?: REFUSED") as caught:
        asyncio.run(solver(names).present(replace(CHALLENGE, domain=ZONE)))
    assert "must be allowed" in caught.value.hint


def test_a_name_of_no_zone_is_told(names: DnsServer) -> None:
    """A server that does not have the zone is named, with the record."""
    with pytest.raises(Rejected, match=r"has no zone for _acme-challenge\.example\.org \(REFUSED\)"):
        asyncio.run(solver(names).present(replace(CHALLENGE, domain="example.org")))


def test_a_server_that_is_away_is_told(names: DnsServer) -> None:
    """Nothing listens: Transient, with address and port."""
    away = NameServer("127.0.0.1", free_port())
    with pytest.raises(Transient, match=f"127.0.0.1:{away.port}") as caught:
        asyncio.run(solver(names, server=away).present(CHALLENGE))
    assert caught.value.reason == "DnsUnreachable"


def test_a_public_server_that_lags_behind_is_waited_for_within_bounds(names: DnsServer, tmp_path: Path) -> None:
    """The update is there, but what the world asks does not answer it: Transient, after the time for it."""
    with (
        dns_server(tmp_path, ZONE) as lagging,
        pytest.raises(Transient, match="did not answer the new value") as caught,
    ):
        asyncio.run(solver(names, answered_by=(lagging.address,), visible_seconds=1.0).present(CHALLENGE))
    assert caught.value.reason == "DnsNotVisible"
    asyncio.run(solver(names).cleanup(CHALLENGE))


def test_what_is_no_name_server_is_told(names: DnsServer) -> None:
    """Something that talks another protocol: Transient, and no traceback."""

    async def scenario(answer: bytes) -> None:
        async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            with pytest.raises(Transient, match="name server"):
                await solver(names, server=NameServer("127.0.0.1", port)).present(CHALLENGE)

    for answer in (b"", b"\0", b"\0\5hello", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\x0c" + b"\xff" * 12):
        asyncio.run(scenario(answer))


@pytest.mark.parametrize(
    "key",
    [
        UpdateKey("acme-key", SecretStr("no base64!")),
        UpdateKey("a..b", SecretStr("b3RoZXI=")),
        UpdateKey("acme-key", SecretStr("b3RoZXI="), "hmac-md5"),
    ],
)
def test_a_key_that_is_none_is_refused_at_once(names: DnsServer, key: UpdateKey) -> None:
    """Settings that cannot work are Broken, before anybody is asked."""
    with pytest.raises(Broken):
        Dns01(Rfc2136(names.address, key))


def gone(pid: int) -> bool:
    """Say whether a process has ended, even where nobody has taken note of its end yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def program(folder: Path, body: str) -> Path:
    path = folder / "hook"
    path.write_text(f"#!{sys.executable} -I\nimport os, sys, time, urllib.request, json\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_hook_writes_the_record_that_the_server_asks_for(tmp_path: Path) -> None:
    """Called with present and cleanup, domain and value; nothing of our environment reaches it."""
    every = EveryName(tmp_path)
    log = tmp_path / "calls"
    hook = program(
        tmp_path,
        f"""
verb, domain, value = sys.argv[1:]
with open({str(log)!r}, "a") as calls:
    calls.write(json.dumps([verb, domain, dict(os.environ), os.getcwd(), sys.stdin.read()]) + "\\n")
words = dict(host=f"_acme-challenge.{{domain}}.", value=value)
url = "{every._url}/" + ("set-txt" if verb == "present" else "clear-txt")
urllib.request.urlopen(url, json.dumps(words).encode()).read()
""",
    )

    async def scenario(server: Pebble) -> None:
        client = AcmeClient(
            Directory(server.url, server.files.certificate), ACCOUNT, limits=ClientLimits(poll_first=0.1)
        )
        request = OrderRequest((f"*.app.{ZONE}",), KEY, Hook(HookSettings(hook)))
        chain = await client.obtain(request, Notes())
        verified(tmp_path, chain, server.root(), f"web.app.{ZONE}", key=KEY)

    try:
        server = Pebble(tmp_path / "pebble", resolver_port=every.port)
        try:
            os.environ["CANARY"] = "canary"
            asyncio.run(scenario(server))
        finally:
            server.close()
    finally:
        del os.environ["CANARY"]
        every.close()
    calls = log.read_text().splitlines()
    assert [call.split('"')[1] for call in calls] == ["present", "cleanup"]
    assert all(f'"app.{ZONE}"' in call and "canary" not in call and call.endswith('"/", ""]') for call in calls)


def test_a_hook_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    """Exit status and the last line of stderr, made visible; the value is an argument and no shell reads it."""
    hook = program(tmp_path, 'sys.stderr.write("first\\nno such zone \\x1b[31m$(id)\\n\\n"); sys.exit(3)')
    with pytest.raises(Rejected) as caught:
        asyncio.run(Hook(HookSettings(hook)).present(CHALLENGE))
    assert caught.value.message == (
        f"The hook {hook} (present shop.{ZONE}) ended with status 3: no such zone \\x1b[31m$(id)."
    )


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """After its time the whole process group is gone, even what ignores SIGTERM and holds stderr."""
    mark = tmp_path / "child"
    child = f"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(mark)!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""
    hook = program(tmp_path, f"os.system({shlex.join([sys.executable, '-c', child])!r})")
    with pytest.raises(Transient, match=r"did not end within 2 s and was stopped"):
        asyncio.run(Hook(HookSettings(hook, seconds=2)).present(CHALLENGE))
    wait_for(lambda: gone(int(mark.read_text())))


def test_what_a_hook_leaves_running_is_ended(tmp_path: Path) -> None:
    """A hook that ends well and leaves a process behind holds nothing up, and the process is ended."""
    mark = tmp_path / "child"
    hook = program(
        tmp_path,
        f"""
pid = os.fork()
if pid == 0:
    time.sleep(600)
open({str(mark)!r}, "w").write(str(pid))
""",
    )

    async def scenario() -> None:
        await Hook(HookSettings(hook, seconds=60)).present(CHALLENGE)
        pid = int(mark.read_text())
        await eventually(lambda: gone(pid))

    asyncio.run(scenario())


def test_only_a_program_that_nobody_else_can_change_is_run(tmp_path: Path) -> None:
    """Relative, missing, not executable, a folder, writable by others: Broken, each with a sentence."""
    hook = program(tmp_path, "")
    cases = {Path("hook"): "whole path", tmp_path / "none": "No such file", tmp_path: "no program"}
    for path, words in cases.items():
        with pytest.raises(Broken, match=words):
            Hook(HookSettings(path))
    for mode, words in ((0o644, "no program"), (0o775, "other users"), (0o757, "other users")):
        hook.chmod(mode)
        with pytest.raises(Broken, match=words):
            Hook(HookSettings(hook))
    hook.chmod(0o755)
    hook.write_text("#!/does/not/exist\n")
    with pytest.raises(Broken, match="could not be started: No such file"):
        asyncio.run(Hook(HookSettings(hook)).present(CHALLENGE))
