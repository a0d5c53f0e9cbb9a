"""A control plane whose private keys are sealed, from its first start on and later."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from reconciler.pki.keystore import KeyStore
from reconciler.pki.vault import KEY_FILE, in_clear
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
    [(None, "which is no file"), ("canary", "does not hold 32 bytes in base64")],
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
