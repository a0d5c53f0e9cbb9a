"""The one place that accepts a remote URL."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import Broken
from reconciler.git.remote import Remote


@pytest.mark.parametrize(
    ("url", "scheme", "given_to_git"),
    [
        ("/srv/state.git", "file", "/srv/state.git"),
        ("/srv/with space:colon.git", "file", "/srv/with space:colon.git"),
        ("file:///srv/a%20b.git", "file", "/srv/a b.git"),
        ("https://git.example.test/x/y.git", "https", "https://git.example.test/x/y.git"),
        ("https://git.example.test:8443/x", "https", "https://git.example.test:8443/x"),
        ("http://127.0.0.1:3000/x", "http", "http://127.0.0.1:3000/x"),
        ("http://[::1]:3000/x", "http", "http://[::1]:3000/x"),
        ("http://localhost/x", "http", "http://localhost/x"),
        ("ssh://git@git.example.test:2222/x.git", "ssh", "ssh://git@git.example.test:2222/x.git"),
        ("ssh://git.example.test/x.git", "ssh", "ssh://git.example.test/x.git"),
        ("git@github.com:org/repo.git", "ssh", "git@github.com:org/repo.git"),
        ("host:repo.git", "ssh", "host:repo.git"),
    ],
)
def test_accepted(url: str, scheme: str, given_to_git: str) -> None:
    """Paths, file, https, http on this machine, ssh and its short form pass."""
    remote = Remote.parse(url)
    assert (remote.scheme, remote.url) == (scheme, given_to_git)
    assert remote.environment()["GIT_ALLOW_PROTOCOL"] == scheme


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ext::sh -c touch% /tmp/x",
        "--upload-pack=touch x;false",
        "-oProxyCommand=touch x:repo",
        "fd::17",
        "git://host/x",
        "ftp://host/x",
        "javascript://host/x",
        "transport::https://host/x",
        "ssh://-oProxyCommand=touch/x",
        "ssh://git@-oProxyCommand=x/x",
        "ssh://user:password@host/x",
        "ssh://host/-x",
        "ssh://host/~-x",
        "ssh://host:port/x",
        "-host:repo",
        "git@-host:repo",
        "-user@host:repo",
        "git@host:-repo",
        "git@host::x",
        "relative/path",
        "../up",
        "C:\\repo",
        "https://host/x\nHost: evil",
        "https://host/\x1b[31m",
        "https:///x",
        "https://ho st/x",
        "https://host/x?y=z",
        "https://host/x#y",
        "https://host:99999/x",
        "https://-host/x",
        "file://host/x",
        "file://relative",
        "file:///a%0ab",
    ],
)
def test_refused(url: str) -> None:
    """Whatever git or ssh could read as a command, an option or another protocol is refused in clean words."""
    with pytest.raises(Broken) as caught:
        Remote.parse(url)
    assert str(caught.value).isprintable()


def test_plain_http_needs_permission() -> None:
    """Plain http to another machine passes only when it was permitted."""
    with pytest.raises(Broken, match="plain http"):
        Remote.parse("http://git.example.test/x")
    assert Remote.parse("http://git.example.test/x", allow_http=True).scheme == "http"


def test_credentials_leave_the_url() -> None:
    """User and password of a URL go to git by configuration and to nobody else."""
    remote = Remote.parse("https://robot:p%40ss@git.example.test/x")
    assert remote.url == "https://git.example.test/x"
    assert "p@ss" not in f"{remote!r} {remote}"
    assert remote.config() == {"http.extraHeader": "Authorization: Basic cm9ib3Q6cEBzcw=="}
    assert set(remote.secrets()) == {"p@ss", "cm9ib3Q6cEBzcw=="}


def test_refusal_hides_credentials() -> None:
    """A refused URL is repeated without its password."""
    with pytest.raises(Broken) as caught:
        Remote.parse("http://robot:canary@git.example.test/x")
    assert "canary" not in str(caught.value)
    with pytest.raises(Broken) as caught:
        Remote.parse("ftp://robot:canary@git.example.test/x")
    assert "canary" not in str(caught.value)


def test_password_file_is_read_each_time(tmp_path: Path) -> None:
    """A rotated token is used by the next process."""
    secret = tmp_path / "token"
    secret.write_text("one\n")
    remote = Remote.parse("https://git.example.test/x", password_file=secret)
    assert "one" in remote.secrets()
    secret.write_text("two\n")
    assert "two" in remote.secrets()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 20_000])
def test_useless_password_file(tmp_path: Path, content: bytes | None) -> None:
    """A file that holds no usable token is said, without its content."""
    secret = tmp_path / "token"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(Broken, match="password file") as caught:
        Remote.parse("https://git.example.test/x", password_file=secret).config()
    assert "xxx" not in str(caught.value)


def test_ssh_command_is_quoted(tmp_path: Path) -> None:
    """A path with a shell's characters stays one word; unknown hosts and prompts are off."""
    key, hosts = tmp_path / "my key; touch x", tmp_path / "known hosts"
    key.touch()
    hosts.touch()
    command = Remote.parse("git@host:x", ssh_key=key, known_hosts=hosts).environment()["GIT_SSH_COMMAND"]
    assert f"-i '{key}'" in command
    assert f"""'UserKnownHostsFile="{hosts}"'""" in command
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=15", "IdentitiesOnly=yes"):
        assert option in command


def test_missing_ssh_key_is_said(tmp_path: Path) -> None:
    """A key file that is not there is the operator's matter."""
    with pytest.raises(Broken, match="nowhere"):
        Remote.parse("git@host:x", ssh_key=tmp_path / "nowhere").environment()


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_is_accepted_or_refused(text: str) -> None:
    """No text makes anything but a remote or a refusal, and no accepted one starts with a dash."""
    try:
        remote = Remote.parse(text)
    except Broken:
        return
    assert not remote.url.startswith("-")
    assert "::" not in remote.url.split("/", maxsplit=1)[0]
