"""Secrets that somebody gives by mistake as an argument, or in place of a file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.__main__ import main
from reconciler.errors import Broken
from reconciler.pki.keystore import KeyStore
from reconciler.pki.vault import read_secret
from reconciler.settings import ENVIRONMENT
from tests.support import documents

SECRET = "canary/hunter2"
URL = f"https://ann:{SECRET.replace('/', '')}@localhost:1"


def said_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str]:
    """Run a command; return its exit code and all that it wrote."""
    try:
        code: int | str | None = main(words)
    except SystemExit as error:
        code = error.code
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["secret", "seal", "shop/db", "password", SECRET], 2, "one word too many"),
        (["secret", "seal", "shop/db", "password", "--with", SECRET, f"--of={SECRET}"], 2, "--of, and one word"),
        (["secret", "seal", "shop/db", "password", f"-p{SECRET}"], 2, "unrecognized arguments: -p"),
        (["secret", "seal", "shop/db", SECRET], 2, "KEY: this is no key"),
        (["secret", "seal", "shop/db", "password", "--value-file", SECRET], 1, "cannot be read: No such file"),
        (["secret", "reveal", "shop/db", "password", "--identity", SECRET], 1, "should hold an age identity"),
        (["agent", "enrol", "--server", "http://localhost:1", "--name", "x", "--data", "x", "--token-file", SECRET],
         1, "the file of --token-file cannot be read"),
        (["agent", "enrol", "--server", URL, "--name", "x", "--data", "x", "--token", "x"], 1, "without user"),
        (["status", "--server", URL], 2, "without user and password"),
        (["mongodb", "uri", "db", "--server", URL], 2, "without user and password"),
        (["mongodb", "uri", f"mongodb://ann:{SECRET}@h/"], 1, "is no name"),
        (["mongodb", "disconnect", f"ann:{SECRET}@h"], 1, "is no name"),
        (["mongodb", "check", f"mongodb://ann:{SECRET}@h/?tls=true"], 2, "percent-encoded"),
        (["mongodb", "check", f"mongodb://ann:p@{SECRET}@h/?tls=true"], 2, "percent-encoded"),
        (["mongodb", "check", f"ann:{SECRET}@h"], 2, "begins with mongodb://"),
        (["init", "fresh", "--domain", "example.com", "--ci-source", URL], 1, "without password"),
        (["init", "fresh", "--domain", "example.com", "--ci-source", "git+https://canary@h/x"], 1, "without password"),
    ],
)  # fmt: skip
def test_a_secret_in_the_wrong_place_is_not_repeated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    sentence: str,
) -> None:
    """Outputs are kept by terminals and by CI; what was wrong is said all the same, and no file gets it."""
    monkeypatch.chdir(tmp_path)
    recipient = KeyStore(tmp_path / "data" / "keys").recipient()
    files = {
        "fleet.yaml": documents.fleet(documents.team("shop"), recipients=[recipient]),
        "secrets/shop/db.yaml": documents.secret("db", "password"),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found, said = said_of(words, capsys)
    assert sentence in said
    assert (found, "canary" in said, "hunter2" in said) == (code, False, False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


@pytest.mark.parametrize("value", [SECRET, "x" * 300 + SECRET])
@pytest.mark.parametrize(
    "name",
    ["CLOUDLUNACY_TOKEN_FILE", "CLOUDLUNACY_KEY_FILE", "CLOUDLUNACY_KEY_PASSPHRASE_FILE", "CLOUDLUNACY_GIT_SSH_KEY"],
)
def test_a_variable_may_hold_the_secret_instead_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """Which variable it is is said, and what should stand there; not what does."""
    monkeypatch.setenv(name, value)
    words = ["serve", "--repo", "/none", "--data", str(tmp_path / "data")]
    if name == "CLOUDLUNACY_TOKEN_FILE":
        words = ["status", "--server", "http://localhost:1"]
    code, said = said_of(words, capsys)
    assert (code, f"{name} names no file. It should be a {ENVIRONMENT[name]}" in said, SECRET in said) == (
        1,
        True,
        False,
    )


@pytest.mark.parametrize("value", [SECRET, "x" * 300 + SECRET])
def test_what_seals_the_keys_may_be_given_instead_of_its_file(value: str) -> None:
    """Nor does `pki reseal --new-passphrase-file` repeat it; a file that is there is named."""
    with pytest.raises(Broken) as caught:
        read_secret(None, Path(value))
    assert ("It should seal the keys." in str(caught.value), "canary" in str(caught.value)) == (True, False)
    with pytest.raises(Broken, match=r"^/etc cannot be read"):
        read_secret(Path("/etc"), None)
