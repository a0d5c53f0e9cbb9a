"""The same mirror over HTTP with authentication, and over ssh with a real sshd."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from reconciler.errors import Rejected, Transient
from reconciler.git.mirror import GitLimits, Mirror
from reconciler.git.remote import Remote
from tests.support.git_repos import BareRepo, processes_of, wait_until_ended
from tests.support.git_server import Behaviour, GitServer, git_server
from tests.support.ssh_server import SshServer, ssh_server
from tests.support.waiting import eventually

TOKEN = "s3cret-t0ken-canary"


@pytest.fixture
def remote(tmp_path: Path) -> BareRepo:
    repo = BareRepo.create(tmp_path / "srv" / "state.git")
    repo.commit({"fleet.yaml": "fleet"})
    return repo


@pytest.fixture
def server(remote: BareRepo) -> Generator[GitServer]:
    with git_server(remote.path.parent) as server:
        yield server


def open_mirror(tmp_path: Path, remote: Remote, **limits: float) -> Mirror:
    return Mirror(tmp_path / "mirror", remote, "main", limits=GitLimits(**limits))  # type: ignore[arg-type]


async def follow(mirror: Mirror) -> list[str]:
    """One poll: look, fetch, list."""
    try:
        head = await mirror.head()
        await mirror.fetch(head)
        return sorted((await mirror.snapshot(head)).files)
    finally:
        await mirror.close()


async def failure_of(mirror: Mirror) -> Transient:
    with pytest.raises(Transient) as caught:
        await follow(mirror)
    return caught.value


def test_http(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """A remote over smart HTTP is followed."""
    assert asyncio.run(follow(open_mirror(tmp_path, Remote.parse(server.url_of(remote.path))))) == ["fleet.yaml"]


def test_fetches_at_once_share_one_download(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """Ten callers that want the same commit cause the requests of one fetch."""
    mirror = open_mirror(tmp_path, Remote.parse(server.url_of(remote.path)))

    async def scenario() -> None:
        tip = await mirror.head()
        server.requests.clear()
        await asyncio.gather(*(mirror.fetch(tip) for _ in range(10)))
        await mirror.close()

    asyncio.run(scenario())
    assert len([request for request in server.requests if request.startswith("GET")]) == 1


def test_idle_poll_asks_once(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """A poll that finds nothing new is one look at the refs; the fetch after it asks nobody."""
    mirror = open_mirror(tmp_path, Remote.parse(server.url_of(remote.path)))

    async def scenario() -> None:
        await mirror.fetch(await mirror.head())
        server.requests.clear()
        await mirror.fetch(await mirror.head())
        await mirror.close()

    asyncio.run(scenario())
    assert len(server.requests) == 2  # capabilities, refs


@pytest.mark.parametrize("way", ["file", "url"])
def test_http_with_a_token(tmp_path: Path, remote: BareRepo, way: str) -> None:
    """A token from a file or from the URL opens the remote and is in no argv and no file of the mirror."""
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    with git_server(remote.path.parent, username="robot", password=TOKEN) as server:
        url = server.url_of(remote.path)
        if way == "url":
            accepted = Remote.parse(url.replace("http://", f"http://robot:{TOKEN}@"))
        else:
            accepted = Remote.parse(url, username="robot", password_file=secret)
        mirror = open_mirror(tmp_path, accepted)
        assert asyncio.run(follow(mirror)) == ["fleet.yaml"]
    assert TOKEN not in f"{accepted!r} {accepted}"
    written = [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_token_is_not_on_the_command_line(tmp_path: Path, remote: BareRepo) -> None:
    """While git runs, ``ps`` shows no credential."""
    with git_server(remote.path.parent, username="robot", password=TOKEN) as server:
        server.behaviour = "stall"
        accepted = Remote.parse(server.url_of(remote.path).replace("//", f"//robot:{TOKEN}@"))
        mirror = open_mirror(tmp_path, accepted)

        async def scenario() -> None:
            looking = asyncio.create_task(mirror.head())
            await eventually(lambda: server.requests)
            running = processes_of(tmp_path / "mirror")
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running]
            assert len(running) >= 2
            assert not [line for line in lines if TOKEN.encode() in line]
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking
            await eventually(lambda: not processes_of(tmp_path / "mirror"))
            await mirror.close()

        # The server answers 401 before it stalls unless the header is right: stalling proves it was sent.
        asyncio.run(scenario())


def test_http_with_a_wrong_token(tmp_path: Path, remote: BareRepo) -> None:
    """A refused token is said, without the token."""
    with git_server(remote.path.parent, username="robot", password="another") as server:
        url = server.url_of(remote.path).replace("http://", f"http://robot:{TOKEN}@")
        failure = asyncio.run(failure_of(open_mirror(tmp_path, Remote.parse(url))))
    assert failure.reason == "AuthenticationFailed"
    assert TOKEN not in str(failure)


def test_redirect_is_not_followed(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """A remote that points elsewhere is not followed there."""
    with git_server(remote.path.parent) as elsewhere:
        server.behaviour, server.redirect_to = "redirect", elsewhere.url
        failure = asyncio.run(failure_of(open_mirror(tmp_path, Remote.parse(server.url_of(remote.path)))))
        assert elsewhere.requests == []
    assert failure.reason == "Redirected"


@pytest.mark.parametrize("behaviour", ["error", "garbage"])
def test_nonsense_is_an_error_with_clean_words(
    tmp_path: Path, remote: BareRepo, server: GitServer, behaviour: Behaviour
) -> None:
    """A server that answers with an error, or with anything but git, leaves clean words and no mirror."""
    server.behaviour = behaviour
    with pytest.raises((Transient, Rejected)) as caught:
        asyncio.run(follow(open_mirror(tmp_path, Remote.parse(server.url_of(remote.path)))))
    assert str(caught.value).isprintable()
    assert not (tmp_path / "mirror" / "repository.git").exists()


def test_remote_that_never_answers(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """A look ends at its time-out and leaves no process behind."""
    server.behaviour = "stall"
    mirror = open_mirror(tmp_path, Remote.parse(server.url_of(remote.path)), head_seconds=0.5)
    failure = asyncio.run(failure_of(mirror))
    assert failure.reason == "GitTimeout"
    wait_until_ended(tmp_path / "mirror")


def test_slow_pack(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """A download that only drips ends at its time-out, and neither process nor partial pack is left."""
    server.behaviour = "slow-pack"
    mirror = open_mirror(tmp_path, Remote.parse(server.url_of(remote.path)), fetch_seconds=1)
    failure = asyncio.run(failure_of(mirror))
    assert failure.reason == "GitTimeout"
    wait_until_ended(tmp_path / "mirror")
    assert not list((tmp_path / "mirror").rglob("*pack_*"))


def test_endless_pack(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """A download that never ends is cut at the quota, said to be too large, and its bytes are deleted."""
    server.behaviour = "endless-pack"
    mirror = open_mirror(tmp_path, Remote.parse(server.url_of(remote.path)), max_pack_bytes=4_000_000, fetch_seconds=60)
    with pytest.raises(Rejected, match="4 MiB") as caught:
        asyncio.run(follow(mirror))
    assert caught.value.reason == "FetchRefused"
    assert sum(path.stat().st_size for path in (tmp_path / "mirror").rglob("*")) < 1_000_000


def test_a_failing_remote_keeps_what_is_here(tmp_path: Path, remote: BareRepo, server: GitServer) -> None:
    """After a refused download the commits from before are read as ever, and the next good answer is taken."""
    url = Remote.parse(server.url_of(remote.path))
    mirror = open_mirror(tmp_path, url, max_pack_bytes=4_000_000, fetch_seconds=1, head_seconds=1)
    first = remote.tip() or ""

    async def scenario() -> None:
        await mirror.fetch(await mirror.head())
        second = remote.commit({"more": "x"})
        failures: tuple[Behaviour, ...] = ("slow-pack", "error", "garbage", "stall")
        for behaviour in failures:
            server.behaviour = behaviour
            with pytest.raises(Transient):
                await mirror.fetch(second)
            assert list((await mirror.snapshot(first)).files) == ["fleet.yaml"]
        server.behaviour = "serve"
        await mirror.fetch(second)
        assert len((await mirror.snapshot(second)).files) == 2
        await mirror.close()

    asyncio.run(scenario())


@pytest.fixture
def ssh(tmp_path: Path) -> Generator[SshServer]:
    with ssh_server(tmp_path / "ssh") as server:
        yield server


def test_ssh(tmp_path: Path, remote: BareRepo, ssh: SshServer) -> None:
    """A remote over ssh is followed with the given key and host key, by URL and in the short form's place."""
    accepted = Remote.parse(ssh.url_of(remote.path), ssh_key=ssh.key, known_hosts=ssh.known_hosts)
    assert asyncio.run(follow(open_mirror(tmp_path, accepted))) == ["fleet.yaml"]


def test_ssh_with_another_host_key(tmp_path: Path, remote: BareRepo, ssh: SshServer) -> None:
    """A host that shows another key than the known one is not talked to."""
    accepted = Remote.parse(ssh.url_of(remote.path), ssh_key=ssh.key, known_hosts=ssh.wrong_known_hosts)
    failure = asyncio.run(failure_of(open_mirror(tmp_path, accepted)))
    assert failure.reason == "AuthenticationFailed"
    assert "host key" in str(failure).lower()


def test_ssh_with_an_unknown_key(tmp_path: Path, remote: BareRepo, ssh: SshServer) -> None:
    """A key that the server does not know is refused at once, without a prompt."""
    accepted = Remote.parse(ssh.url_of(remote.path), ssh_key=ssh.stranger_key, known_hosts=ssh.known_hosts)
    failure = asyncio.run(failure_of(open_mirror(tmp_path, accepted)))
    assert failure.reason == "AuthenticationFailed"
    assert "Permission denied" in str(failure)
