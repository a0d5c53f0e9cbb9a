from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.acme.settings import AcmeSettings, DnsSettings, address_and_port, read_settings

WHOLE = """
[[directory]]
url = "https://acme.test/dir"
ca-file = "/etc/ca.pem"
key-id = "kid-1"
mac-key = "c2VjcmV0LWNhbmFyeQ"

[[dns]]
zones = ["example.com", "deep.example.com"]
server = "192.0.2.53:5353"
key-name = "acme"
key-secret = "c2VjcmV0LWNhbmFyeQ=="

[[dns]]
hook = "/usr/local/bin/hook"
"""


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "acme.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_says_whom_to_trust_and_who_writes_records(tmp_path: Path) -> None:
    """Directories are found by URL, name servers by the longest zone above a domain."""
    found = read_settings(written(tmp_path, WHOLE))
    assert found.directory_of("https://acme.test/dir").ca_file == Path("/etc/ca.pem")
    assert found.directory_of("https://other.test/dir").ca_file is None
    assert [found.dns_for(name) for name in ("a.example.com", "x.deep.example.com", "example.org")] == [0, 0, 1]
    assert "canary" not in repr(found)


def test_without_a_file_nothing_is_set_up() -> None:
    """Then servers are trusted by the system's roots, and nobody writes records."""
    found = read_settings(None)
    assert found.dns_for("example.com") is None
    assert found.directory_of("https://acme.test/dir").key_id is None


def test_the_longest_zone_wins() -> None:
    """A zone of its own is written where it is kept, not where its parent is."""
    servers = [DnsSettings(zones=(zone,), hook=Path("/hook")) for zone in ("example.com", "sub.example.com")]
    settings = AcmeSettings(dns=tuple(servers))
    found = [settings.dns_for(name) for name in ("sub.example.com", "a.sub.example.com", "xsub.example.com", "com")]
    assert found == [1, 1, 0, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[directory", "is no TOML"),
        (
            '[[directory]]\nurl = "http://acme.test/dir"',
            "directory.0.url: this is no URL that is asked: write https://",
        ),
        ('[[directory]]\nurl = "https://acme.test/dir"\nmac-key = "canary"', "key-id and mac-key go together"),
        ('[[directory]]\nurl = "https://a.test/"\n[[directory]]\nurl = "https://a.test/"', "listed twice"),
        ('[[dns]]\nhook = "/a"\n[[dns]]\nhook = "/b"', "two [[dns]] without zones"),
        ('[[dns]]\nserver = "192.0.2.1"\nkey-secret = "canary"', "server needs key-name and key-secret"),
        (
            '[[dns]]\nserver = "ns.example.com"\nkey-name = "a"\nkey-secret = "canary"',
            "dns.0.server: this is no address: write an IP address",
        ),
        ("[[dns]]\nzones = []", "write either hook or server"),
        ("unknown = 1", "unknown"),
    ],
)
def test_what_is_wrong_is_said_without_its_values(tmp_path: Path, text: str, words: str) -> None:
    """A sentence names the field and what it should be, and holds no secret."""
    with pytest.raises(Broken) as caught:
        read_settings(written(tmp_path, text))
    assert words in str(caught.value)
    assert "pattern" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It may hold the keys of a zone."""
    with pytest.raises(Broken, match="open to other users"):
        read_settings(written(tmp_path, WHOLE, 0o640))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="cannot be read"):
        read_settings(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("[::1]", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_addresses_have_a_port(text: str, expected: tuple[str, int]) -> None:
    """53 where none is written."""
    assert address_and_port(text) == expected
