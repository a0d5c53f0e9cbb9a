"""``cloudlunacy pki`` as a shell runs it: on the machine of the control plane, and where the root's key is."""

from __future__ import annotations

import base64
import datetime as dt
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import __main__ as program
from reconciler.pki.authority import profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.vault import KEY_FILE, PASSPHRASE_FILE
from tests.support.certificates import KEY, names
from tests.support.openssl import run, verify

PASSPHRASE = "correct horse battery"


class Shell:
    """Runs commands in one directory and remembers what the last one said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: str | Path) -> int:
        try:
            code = program.main(["pki", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        self.out, self.err = self._capsys.readouterr()
        return code

    def status(self, data: Path) -> dict[str, object]:
        assert self("status", "--data", data, "--format", "json") == 0
        found: dict[str, object] = json.loads(self.out)
        return found


@pytest.fixture
def pki(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in (KEY_FILE, PASSPHRASE_FILE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


def verdict(data: Path, folder: Path, host: str, *, roots: str = "") -> tuple[bool, str]:
    """What openssl says of a leaf that the authority issues for ``host`` now."""
    authority, now = Authority(data / "keys"), dt.datetime.now(dt.UTC)
    leaf = authority.issue(profiles.server(names(host)), KEY.public_key(), holder="test", now=now)
    return verify(folder, leaf.pem, roots or authority.bundle().pem, at=now)


def openssl_root(folder: Path, *options: str) -> None:
    """Make root.pem and root.key as an operator with openssl would."""
    made = run(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-days", "3650"),
        *("-subj", "/O=Example/CN=Example root", "-keyout", str(folder / "root.key"), "-out", str(folder / "root.pem")),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign", *options),
    )
    assert made.good, made.text


def test_init_prints_the_fingerprint_that_agents_pin(pki: Shell, tmp_path: Path) -> None:
    """On stdout there is nothing else; openssl computes the same; the leaf of a permitted name is good."""
    assert pki("init", "--data", "data", "--domain", "fleet.test") == 0
    fingerprint = pki.out.strip()
    shown = run("x509", "-noout", "-fingerprint", "-sha256", "-in", "data/keys/authority/root-current.pem").text

    assert (len(fingerprint), pki.err) == (64, "")
    assert shown.strip().rpartition("=")[2].replace(":", "").lower() == fingerprint
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert verdict(tmp_path / "data", tmp_path, "web.fleet.test")[0]
    assert verdict(tmp_path / "data", tmp_path, "127.0.0.1")[0]


def test_init_never_replaces_an_authority(pki: Shell, tmp_path: Path) -> None:
    """Exit code 1 and a sentence, whichever way is asked for."""
    pki("init", "--data", "data")
    before = (tmp_path / "data/keys/authority/root-current.pem").read_bytes()
    for way in ([], ["--root-key-out", "root.key"]):
        assert pki("init", "--data", "data", *way) == 1
        assert "There is an authority already" in pki.err
        assert pki.out == ""
    assert (tmp_path / "data/keys/authority/root-current.pem").read_bytes() == before
    assert not (tmp_path / "root.key").exists()


def test_status_says_what_there_is(pki: Shell, tmp_path: Path) -> None:
    """Roles, fingerprints, ends, where keys are and counts, for people and as JSON."""
    pki("init", "--data", "data", "--domain", "fleet.test", "--name", "10.0.0.1")
    fingerprint = pki.out.strip()
    verdict(tmp_path / "data", tmp_path, "fleet.test")
    said = pki.status(tmp_path / "data")
    assert pki("status", "--data", "data") == 0

    assert said["roots"][0]["sha256"] == fingerprint  # type: ignore[index]
    assert said["roots"][0]["key"] == "clear"  # type: ignore[index]
    assert said["intermediates"][0]["permitted"] == [  # type: ignore[index]
        "DNS:fleet.test", "DNS:localhost", "IP:10.0.0.1/32", "IP:127.0.0.1/32", "IP:::1/128", "URI:fleet.test",
    ]  # fmt: skip
    assert said["certificates"] == {"intermediate": {"good": 1}, "root": {"good": 1}, "server": {"good": 1}}
    assert said["outstanding"] is None
    for text in (fingerprint, "root (current)", "intermediate (current)", "IP:10.0.0.1/32", "1 good"):
        assert text in pki.out
    assert "PRIVATE" not in pki.out


def test_a_root_that_is_made_for_another_place(pki: Shell, tmp_path: Path) -> None:
    """The key is in its file alone, sealed by its passphrase as openssl knows it; widening takes three commands."""
    (tmp_path / "words").write_text(f"{PASSPHRASE}\n")
    data = tmp_path / "data"
    assert pki("init", "--data", data, "--root-key-out", "root.key", "--root-passphrase-file", "words") == 0
    assert "nowhere else" in pki.err
    opened = run("pkey", "-noout", "-in", "root.key", "-passin", "file:words")
    (tmp_path / "root.pem").write_text(Authority(data / "keys").bundle().pem)
    wanted = permitted_for(domain="fleet.test")
    assert Authority(data / "keys").ensure_permitted(wanted, dt.datetime.now(dt.UTC)) is not None
    waits = pki.status(data)
    pki("status", "--data", data)
    assert "waits for a person" in pki.out
    assert pki("request", "--data", data, "--out", "request.pem") == 0
    sign = ("sign", "--root-cert", "root.pem", "--root-key", "root.key", "--request", "request.pem")
    assert pki(*sign) == 1
    assert "--root-passphrase-file" in pki.err
    assert pki(*sign, "--root-passphrase-file", "words", "--out", "intermediate.pem") == 0
    assert "URI:fleet.test" in pki.err
    assert pki("install", "--data", data, "intermediate.pem") == 0

    assert opened.good, opened.text
    assert stat.S_IMODE((tmp_path / "root.key").stat().st_mode) == 0o600
    assert waits["roots"][0]["key"] == "offline"  # type: ignore[index]
    assert waits["outstanding"]["reason"] == "RootOffline"  # type: ignore[index]
    assert "DNS:fleet.test" in pki.err
    assert pki.status(data)["outstanding"] is None
    assert verdict(data, tmp_path, "web.fleet.test", roots=(tmp_path / "root.pem").read_text())[0]


@pytest.mark.parametrize("keep", [True, False])
def test_a_root_of_ones_own_made_by_openssl(pki: Shell, tmp_path: Path, keep: bool) -> None:
    """Its key signs the intermediate, and stays where it was unless it is to be kept."""
    openssl_root(tmp_path)
    given = ["--root-cert", "root.pem", "--root-key", "root.key", *(["--keep-root-key"] if keep else [])]
    assert pki("init", "--data", "data", "--domain", "fleet.test", *given) == 0
    key = pki.status(tmp_path / "data")["roots"][0]["key"]  # type: ignore[index]

    assert key == ("clear" if keep else "offline")
    assert verdict(tmp_path / "data", tmp_path, "web.fleet.test", roots=(tmp_path / "root.pem").read_text())[0]


def test_a_root_whose_key_never_comes_near(pki: Shell, tmp_path: Path) -> None:
    """The certificate alone founds; everything goes through a pipe between the two machines."""
    openssl_root(tmp_path)
    assert pki("init", "--data", "data", "--domain", "fleet.test", "--root-cert", "root.pem") == 0
    assert "waits for the signature" in pki.err
    cloudlunacy = f"{sys.executable} -m reconciler pki"
    pipe = (
        f"{cloudlunacy} request --data data | {cloudlunacy} sign --root-cert root.pem --root-key root.key "
        f"| {cloudlunacy} install --data data -"
    )
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {pipe}"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert verdict(tmp_path / "data", tmp_path, "web.fleet.test", roots=(tmp_path / "root.pem").read_text())[0]


def test_openssl_may_sign_the_request_too(pki: Shell, tmp_path: Path) -> None:
    """Nobody needs this program where the root is: the request carries what is asked for."""
    openssl_root(tmp_path)
    pki("init", "--data", "data", "--domain", "fleet.test", "--root-cert", "root.pem")
    pki("request", "--data", "data", "--out", "request.pem")
    (tmp_path / "extensions").write_text(
        "keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    signed = run(
        *("x509", "-req", "-in", "request.pem", "-CA", "root.pem", "-CAkey", "root.key", "-days", "365"),
        *("-copy_extensions", "copy", "-extfile", "extensions", "-out", "intermediate.pem"),
    )
    assert signed.good, signed.text
    assert pki("install", "--data", "data", "intermediate.pem") == 0, pki.err

    assert verdict(tmp_path / "data", tmp_path, "web.fleet.test")[0]


def test_keys_are_sealed_when_the_environment_names_a_key(
    pki: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first file on; without the key status still works, and what signs is a sentence."""
    (tmp_path / "kek").write_bytes(base64.b64encode(b"k" * 32))
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "kek"))
    assert pki("init", "--data", "data", "--domain", "fleet.test") == 0
    everything = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").rglob("*") if path.is_file()}
    monkeypatch.delenv(KEY_FILE)
    said = pki.status(tmp_path / "data")
    assert pki("request", "--data", "data") == 1
    assert KEY_FILE in pki.err
    (tmp_path / "kek").write_bytes(base64.b64encode(b"o" * 32))
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "kek"))
    assert pki("status", "--data", "data") == 1

    assert b"PRIVATE KEY" not in everything
    assert modes == {0o600}
    assert said["roots"][0]["key"] == "sealed"  # type: ignore[index]
    assert "sealed with another key file" in pki.err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["status", "--data", "missing"], 1, "There is no authority in"),
        (["request", "--data", "missing"], 1, "There is no authority in"),
        (["init", "--data", "data", "--root-key", "x"], 1, "--root-key needs --root-cert"),
        (["init", "--data", "data", "--keep-root-key"], 1, "--keep-root-key needs --root-key"),
        (["init", "--data", "data", "--root-cert", "missing.pem"], 1, "missing.pem says: No such file"),
        (["init", "--data", "data", "--root-cert", "noise"], 1, "noise holds no certificate"),
        (["init", "--data", "data", "--root-key-out", "noise"], 1, "never overwritten"),
        (["init", "--data", "noise"], 1, "Not a directory"),
        (["init", "--data", "data", "--domain", "*.fleet.test"], 2, "the domain is a host name"),
        (["init", "--data", "data", "--name", "a b"], 2, "neither a host name nor an address"),
        (["init", "--data", "data", "--root-cert", "a", "--root-key-out", "b"], 2, "not allowed with"),
        (["sign", "--root-cert", "noise", "--root-key", "noise"], 1, "noise holds no certificate"),
        (["install", "--data", "data"], 2, "required: FILE"),
        (["nonsense"], 2, "invalid choice"),
    ],
    ids=lambda value: "-".join(value[:1] + value[3:5]) if isinstance(value, list) else "",
)
def test_mistakes_are_sentences(pki: Shell, tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    """Exit code 1, or 2 for a wrong command line; nothing on stdout, and nothing is made."""
    (tmp_path / "noise").write_text("canary")

    assert pki(*words) == code
    assert sentence in " ".join(pki.err.split())
    assert pki.out == ""
    assert "canary" not in pki.err
    assert "Traceback" not in pki.err
    assert not (tmp_path / "missing").exists()


def test_a_request_is_not_signed_by_another_root(pki: Shell, tmp_path: Path) -> None:
    """What another root signed is not installed, and the sentence says so."""
    openssl_root(tmp_path)
    pki("init", "--data", "data", "--root-key-out", "own.key")
    pki("request", "--data", "data", "--out", "request.pem")
    assert pki("sign", "--root-cert", "root.pem", "--root-key", "own.key", "--request", "request.pem") == 1
    assert "is not the key of" in pki.err
    sign = ("sign", "--root-cert", "root.pem", "--root-key", "root.key", "--request")
    assert pki(*sign, "request.pem", "--out", "foreign.pem") == 0
    assert pki(*sign, "request.pem", "--out", "foreign.pem") == 1
    assert "exists already" in pki.err
    assert pki(*sign, "root.pem") == 1
    assert "no certificate signing request" in pki.err

    assert pki("install", "--data", "data", "foreign.pem") == 1
    assert "not signed by the root" in pki.err
