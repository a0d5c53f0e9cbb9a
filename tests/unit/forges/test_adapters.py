"""What every adapter keeps to, each against a forge that behaves as its documentation says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from starlette.responses import JSONResponse, Response

from reconciler.errors import Broken, Rejected, Transient
from reconciler.forges.forge import CommitStatus, Forge, Proposal, put_comment
from reconciler.forges.forge import propose as propose_on
from tests.support.forges import KINDS, FakeForge, FakeGitHub
from tests.support.forges.fake import NOW, TOKEN
from tests.support.forges.github import secondary_limit

T = TypeVar("T")
REVISION = "a" * 40
URL = f"https://control.test/revisions/{REVISION}"
MARKER = "[cloudlunacy:plan]: https://cloudlunacy.invalid/plan"
PENDING = CommitStatus("pending", "On its way.", URL)
LONG = CommitStatus("failure", "Held: " + "x" * 400, URL)


@pytest.fixture(params=sorted(KINDS))
def fake(request: pytest.FixtureRequest) -> FakeForge:
    return KINDS[request.param]()


def with_forge(fake: FakeForge, work: Callable[[Forge], Awaitable[T]], token: str = TOKEN) -> T:
    async def run() -> T:
        forge = fake.forge(token)
        try:
            return await work(forge)
        finally:
            await forge.close()

    return asyncio.run(run())


def test_a_status_is_set_and_seen_again(fake: FakeForge) -> None:
    """The forge shows what was posted last, with the link, and whoever asks learns whether it is what they want."""

    async def work(forge: Forge) -> list[bool]:
        answers = [await forge.has_status(REVISION, PENDING)]
        await forge.set_status(REVISION, PENDING)
        answers.append(await forge.has_status(REVISION, PENDING))
        await forge.set_status(REVISION, LONG)
        return [*answers, await forge.has_status(REVISION, PENDING), await forge.has_status(REVISION, LONG)]

    assert with_forge(fake, work) == [False, True, False, True]
    newest = fake.statuses[-1]
    assert (newest.revision, newest.url, newest.name) == (REVISION, URL, "cloudlunacy")
    assert newest.description.startswith("Held: xxx")
    assert newest.description.endswith("…")


@pytest.mark.parametrize("state", ["pending", "success", "failure", "cancelled"])
def test_each_state_has_a_word_at_each_forge(fake: FakeForge, state: str) -> None:
    """No forge refuses one of them."""
    status = CommitStatus(state, "Words.", URL)  # type: ignore[arg-type]
    with_forge(fake, lambda forge: forge.set_status(REVISION, status))
    assert len(fake.statuses) == 1


def test_a_pull_request_is_opened_once(fake: FakeForge) -> None:
    """A second call finds the first one's; one of the same name in a fork is another one."""
    fake.ask("enrol/vps-1", is_fork=True)
    for number in range(5):
        fake.ask(f"other-{number}")
    proposal = Proposal("enrol/vps-1", "main", "Enrol agent vps-1", "It proved its key.")
    first = with_forge(fake, lambda forge: propose_on(forge, proposal))
    second = with_forge(fake, lambda forge: propose_on(forge, proposal))
    assert (first[1], second[1]) == (True, False)
    assert first[0] == second[0]
    assert first[0].url.endswith(f"/{first[0].number}")
    opened = fake.pulls[-1]
    assert (opened.title, opened.body, len(fake.pulls)) == (proposal.title, proposal.body, 7)


def test_who_loses_the_race_for_a_pull_request_finds_it(fake: FakeForge) -> None:
    """Somebody opens it between the look and the request: that one is the answer."""

    async def work(forge: Forge) -> tuple[int, bool]:
        real = forge.open_pull_request

        async def late(proposal: Proposal) -> object:
            fake.ask(proposal.branch)
            if fake.kind == "bitbucket":  # which would take a second one
                raise Rejected("There is one.", reason="ForgeRefused")
            return await real(proposal)

        forge.open_pull_request = late  # type: ignore[assignment, method-assign]
        found, is_new = await propose_on(forge, Proposal("b", "main", "t", ""))
        return found.number, is_new

    assert with_forge(fake, work) == (1, False)


def test_there_is_one_comment_and_it_is_updated(fake: FakeForge) -> None:
    """It is found behind other people's on a later page, also where somebody copied the marker."""
    fake.ask("change")
    for _ in range(3):
        fake.say(1, f"Copied.\n{MARKER}", author=2)

    async def work(forge: Forge) -> list[str]:
        bodies = [f"plan 1\n\n{MARKER}", f"plan 2\n\n{MARKER}", f"plan 2\n\n{MARKER}"]
        return [await put_comment(forge, 1, MARKER, body) for body in bodies]

    assert with_forge(fake, work) == ["added", "updated", "unchanged"]
    assert [one.body.startswith("Copied") for one in fake.comments] == [True, True, True, False]
    assert fake.comments[-1].body == f"plan 2\n\n{MARKER}"


@pytest.mark.parametrize("kind", ["bitbucket", "gitea", "github"])
def test_a_token_of_no_user_knows_its_comments_by_the_bot(kind: str) -> None:
    """Tokens of CI may not ask who they are; a person who copies the marker still is not taken for them."""
    fake = KINDS[kind]()
    fake.may_ask_who = False
    fake.ask("change")
    fake.say(1, f"Copied.\n{MARKER}", author=2)

    async def work(forge: Forge) -> list[str]:
        return [await put_comment(forge, 1, MARKER, f"plan {number}\n{MARKER}") for number in range(2)]

    assert with_forge(fake, work) == ["added", "updated"]
    assert [one.body for one in fake.comments] == [f"Copied.\n{MARKER}", f"plan 1\n{MARKER}"]


def test_a_wrong_token_is_for_the_operator_and_stays_unsaid(fake: FakeForge) -> None:
    """The message says what to do, and neither it nor any representation holds the token."""

    async def work(forge: Forge) -> str:
        with pytest.raises(Broken, match="put a new one into its file") as caught:
            await forge.set_status(REVISION, PENDING)
        return f"{caught.value} {forge!r} {vars(forge)!r}"

    assert "wrong-token" not in with_forge(fake, work, "wrong-token")


def test_a_missing_repository_is_for_the_operator(fake: FakeForge) -> None:
    """A name that is not there, or that the token may not see."""
    fake.repository = "platform/another"
    with pytest.raises(Broken, match="not there under this name"):
        with_forge(fake, lambda forge: forge.set_status(REVISION, PENDING))


FAILURES: dict[str, tuple[Callable[[], Response], float | None]] = {
    "retry-after": (lambda: JSONResponse({"message": "slow down"}, 429, {"Retry-After": "17"}), 17.0),
    "reset": (
        lambda: JSONResponse(
            {"message": "API rate limit exceeded"}, 403,
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 90)},
        ),
        90.0,
    ),
    "gitlab-reset": (lambda: JSONResponse({}, 429, {"RateLimit-Reset": str(int(NOW) + 5)}), 5.0),
    "secondary": (secondary_limit, 60.0),
    "for-ever": (lambda: JSONResponse({}, 429, {"Retry-After": "9" * 40}), 3600.0),
    "away": (lambda: Response("<h1>502</h1>", 502), None),
    "maintenance": (lambda: Response("", 503, {"Retry-After": "30"}), 30.0),
    "no-json": (lambda: Response("<h1>welcome</h1>", 200), None),
    "another-shape": (lambda: JSONResponse({"id": "seven"}, 200), None),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_what_passes_says_how_long_to_wait(fake: FakeForge, name: str) -> None:
    """Limits and outages are for later, with the time that the forge asks for."""
    make, seconds = FAILURES[name]
    fake.failures.append(make)
    with pytest.raises(Transient) as caught:
        with_forge(fake, lambda forge: forge.open_pull_request(Proposal("b", "main", "t", "")))
    assert caught.value.retry_after == seconds


def test_a_redirect_is_not_followed(fake: FakeForge) -> None:
    """The token goes to the host of the settings alone."""
    fake.failures.append(lambda: Response("", 307, {"Location": "https://elsewhere.invalid/"}))
    with pytest.raises(Broken, match="redirects are not followed"):
        with_forge(fake, lambda forge: forge.set_status(REVISION, PENDING))
    assert len(fake.requests) == 1


def test_a_giant_answer_is_not_read(fake: FakeForge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fills the memory."""
    monkeypatch.setattr("reconciler.forges.connection.MOST_BYTES", 1000)
    fake.failures.append(lambda: Response("x" * 2000))
    with pytest.raises(Transient, match="more than 1000 bytes"):
        with_forge(fake, lambda forge: forge.set_status(REVISION, PENDING))


def test_an_answer_that_repeats_the_token_does_not_bring_it_into_a_message(fake: FakeForge) -> None:
    """A proxy that echoes headers makes no leak of ours."""
    fake.failures.append(lambda: JSONResponse({"message": f"strange header {TOKEN}"}, 422))
    with pytest.raises(Rejected, match=r"strange header \[redacted\]") as caught:
        with_forge(fake, lambda forge: forge.set_status(REVISION, PENDING))
    assert TOKEN not in str(caught.value)


def test_github_takes_a_thousand_statuses() -> None:
    """The next one is refused, which is no reason to try again."""
    fake = FakeGitHub()
    fake.most_statuses = 1
    with_forge(fake, lambda forge: forge.set_status(REVISION, PENDING))
    with pytest.raises(Rejected, match="maximum number of statuses"):
        with_forge(fake, lambda forge: forge.set_status(REVISION, LONG))


def test_gitlab_keeps_a_state_that_it_has() -> None:
    """It refuses the change from pending to pending; the words stay the older ones, and nobody is bothered."""
    fake = KINDS["gitlab"]()
    other = CommitStatus("pending", "Waits for a person.", URL)

    async def work(forge: Forge) -> None:
        for status in (PENDING, other, CommitStatus("success", "In service everywhere.", URL)):
            await forge.set_status(REVISION, status)

    with_forge(fake, work)
    assert [(one.state, one.description) for one in fake.statuses] == [("success", "In service everywhere.")]
