"""A control plane whose private keys are sealed, from its first start on and later."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.pki.keystore import KeyStore
from reconciler.pki.vault import KEY_FILE, PASSPHRASE_FILE, in_clear
from tests.support.fleet import installation, run_cli, start_files


def test_keys_of_a_running_fleet_are_sealed_at_the_next_start(tmp_path: Path) -> None:
    """Clear at first; sealed once there is a key; the same keys all along, and nothing starts without it any more."""
    (tmp_path / "key").write_bytes(base64.b64encode(b"k" * 32))
    with installation(tmp_path / "one", start_files("web"), traefik=False) as one:
        keys = one.data / "keys"
        recipient, clear = KeyStore(keys).recipient(), in_clear(keys)
        one.environment = {KEY_FILE: str(tmp_path / "key")}
        assert one.stop() == 0
        one.start()
        after, log = in_clear(keys), one.log()
        one.environment = {}
        assert one.stop() == 0
        one.start(wait=False)
        assert one.process is not None

        assert one.process.wait(20) == 1
        assert "age-identity.txt" in clear
        assert after == ("default-certificate.pem",)  # which protects nothing
        assert recipient in log.rpartition("listening")[2]
        assert f'The key "access" is sealed. Name the file with the right key in {KEY_FILE}' in one.log()
        assert "Traceback" not in one.log()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "names no file"), ("canary", "does not hold 32 bytes in base64")],
    ids=["missing", "noise"],
)
def test_serve_says_what_is_wrong_with_the_key(tmp_path: Path, content: str | None, sentence: str) -> None:
    """One sentence, exit code 1, before anything is started; no key is made meanwhile."""
    if content is not None:
        (tmp_path / "key").write_text(content)
    words = ("serve", "--repo", tmp_path / "none.git", "--data", tmp_path / "data", "--listen", "127.0.0.1:0")
    done = run_cli(*words, env={KEY_FILE: str(tmp_path / "key")})

    assert done.returncode == 1
    assert sentence in done.stderr
    assert "canary" not in done.stderr + done.stdout
    assert not (tmp_path / "data/keys").exists()


def test_another_passphrase_takes_over_and_nobody_notices(tmp_path: Path) -> None:
    """`pki reseal` while serve is down: the same authority and keys afterwards; the former passphrase opens nothing."""
    for name, content in (("old", "a passphrase of long ago"), ("new", "another one, of today")):
        (tmp_path / name).write_text(content)
    old, new = ({PASSPHRASE_FILE: str(tmp_path / name)} for name in ("old", "new"))
    with installation(tmp_path / "one", start_files("web"), traefik=False, environment=dict(old)) as one:
        assert one.enrol("vps-1").returncode == 0
        roots, sealing = one.ca.read_bytes(), one.data / "keys" / "sealing.json"
        words = ("pki", "reseal", "--data", one.data, "--new-passphrase-file", tmp_path / "new")
        running = run_cli(*words, env=old)
        assert (running.returncode, "is in use by" in running.stderr) == (1, True)
        one.stop()
        wrong = run_cli(*words, env=new)
        assert (wrong.returncode, "sealed with another passphrase" in wrong.stderr) == (1, True)
        done = run_cli(*words, env=old)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"Start serve with {PASSPHRASE_FILE}={tmp_path / 'new'}.\n")
        assert "former" not in json.loads(sealing.read_text())
        one.start(wait=False)
        assert one.process is not None
        assert one.process.wait(20) == 1
        one.environment = new
        one.start()
        one.run_agent("vps-1")
        one.wait_connected("vps-1")
        assert one.ca.read_bytes() == roots
        assert run_cli("pki", "status", "--data", one.data, env=new).returncode == 0


def test_a_reseal_that_was_cut_off_is_finished_by_serve(tmp_path: Path) -> None:
    """The process died right after the step that decides; serve starts with the new key and seals the rest."""
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(base64.b64encode(name[:1].encode() * 32))
    cut = tmp_path / "cut.py"
    cut.write_text(CUT)
    with installation(tmp_path / "one", start_files("web"), traefik=False,
                      environment={KEY_FILE: str(tmp_path / "old")}) as one:  # fmt: skip
        kid = one.client.get("/.well-known/jwks.json").json()["keys"][0]["kid"]
        one.stop()
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), KEY_FILE: str(tmp_path / "old")}
        words = ("pki", "reseal", "--data", str(one.data), "--new-key-file", str(tmp_path / "new"))
        died = subprocess.run([sys.executable, str(cut), *words], env=environment, capture_output=True, check=False)
        assert died.returncode == 9, died.stderr
        one.environment = {KEY_FILE: str(tmp_path / "new")}
        one.start()
        assert one.client.get("/.well-known/jwks.json").json()["keys"][0]["kid"] == kid
        one.restart()
        assert "former" not in json.loads((one.data / "keys" / "sealing.json").read_text())


CUT = """
import os, sys
from reconciler.commands import pki_reseal
pki_reseal.seal_again = lambda *_: os._exit(9)
from reconciler.__main__ import main
sys.exit(main())
"""
