"""The demo without a person: push one change, wait until it is live, and see with requests of our own that it is."""

from __future__ import annotations

import secrets
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx

from reconciler.commands.demo import database
from reconciler.commands.demo.bring_up import ADMIN, Demo, require_converged
from reconciler.errors import Broken, Transient
from schemas.status import STAGES, RevisionStatus

HEADER: Final = "X-Demo"
WEB: Final = "web.app.cloudlunacy.test"
SECONDS: Final = 10.0
SERVED_SECONDS: Final = 30.0
ASK_SECONDS: Final = 0.1
"""Below what the route's rate limit allows."""


@dataclass(frozen=True, slots=True)
class Check:
    """One request through Traefik and what must come back."""

    host: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that the answer must carry."""
    user: tuple[str, str] | None = None
    entry_point: str = "web"
    path: str = "/"
    sent: dict[str, str] = field(default_factory=dict)
    """Headers of the request."""


API: Final = Check("api.app.cloudlunacy.test", 200, entry_point="websecure", path="/v1/", sent={"X-Api-Version": "1"})
"""The app whose new version the change brings; every deployment of it is blue-green."""


def push_change(demo: Demo, word: str) -> str:
    """Push one commit that concerns Traefik (a header) and what an agent runs (a variable); return its id."""
    demo.repo.edit("routes/shop/web.yaml", lambda route: _add_header(route, word))
    demo.repo.edit("deployments/shop/api.yaml", lambda one: one["spec"]["env"].update(GREETING=word))
    return demo.repo.push(f"Greet with {word}")


def wait_served(demo: Demo) -> None:
    """Wait until what the agents run answers through Traefik: fronts learn of it when its first health check was good.

    Raises:
        Broken: when that takes too long.
        Interrupted
    """
    wanted = [check for check in (API, *checks("", "")) if check.user is None]

    def all_answer() -> bool:
        try:
            return all(_ask(demo, check).status_code == check.status for check in wanted)
        except Broken as error:
            raise Transient(error.message) from None

    demo.supervisor.wait_until(all_answer, SERVED_SECONDS, "not every app answers through Traefik")


def try_once(demo: Demo, say: Callable[[str], None]) -> RevisionStatus:
    """Do all of it; return the record.

    Raises:
        Broken: at the first thing that is not as it should be.
        Interrupted
    """
    word = secrets.token_hex(4)
    if _ask(demo, Check(WEB, 200)).headers.get(HEADER) == word:
        raise Broken(f"{WEB} knows the word before it was pushed.")
    if _greeting(demo) == word:
        raise Broken(f"{API.host} knows the word before it was pushed.")
    with _Asking(demo) as asking:
        revision = push_change(demo, word)
        status = demo.wait_settled(revision)
    require_converged(status)
    _check_record(status, revision)
    if (greeting := _greeting(demo)) != word:
        raise Broken(f"{API.host} greets with {greeting} and not with {word}.")
    say(f"{API.host} greets with {word}: its new version took over, and none of {asking.count} requests failed")
    for check in checks(word, demo.memory.admin_password):
        _check_served(demo, check)
        say(f"{check.host} answers {check.status}" + (f" with {check.headers}" if check.headers else ""))
    for line in _try_mongodb(demo, word):
        say(line)
    return status


def checks(word: str, password: str) -> list[Check]:
    """The change first, then routes of every kind beside it, which must go on as before."""
    return [
        Check(WEB, 200, {HEADER: word, "X-Frame-Options": "DENY"}),
        Check("balanced.app.cloudlunacy.test", 200),
        Check("reports.analytics.cloudlunacy.test", 200),
        Check("notebooks.analytics.cloudlunacy.test", 200),
        Check("checkout.app.cloudlunacy.test", 503),
        Check("admin.app.cloudlunacy.test", 401),
        Check("admin.app.cloudlunacy.test", 200, user=(ADMIN, password)),
        Check("shop.example.test", 200, entry_point="websecure"),
        Check("unknown.app.cloudlunacy.test", 404),
    ]


class _Asking:
    """Asks for the app that is rolled out, again and again, until it is left; no request may fail."""

    def __init__(self, demo: Demo) -> None:
        self.count = 0
        self._demo = demo
        self._failed: Broken | None = None
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-asking")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._enough.set()
        self._thread.join()
        if self._failed is not None and kind is None:
            raise self._failed

    def _run(self) -> None:
        while self._failed is None and not self._enough.wait(ASK_SECONDS):
            try:
                _check_served(self._demo, API)
                self.count += 1
            except Broken as error:
                self._failed = error


def _greeting(demo: Demo) -> str:
    _check_served(demo, API)
    return str(_ask(demo, API).json()["greeting"])


def _add_header(route: Any, word: str) -> None:  # noqa: ANN401 - a document of ruamel's
    for middleware in route["spec"]["middlewares"]:
        if "headers" in middleware:
            middleware["headers"]["response"][HEADER] = word


def _check_record(status: RevisionStatus, revision: str) -> None:
    if status.revision != revision:
        raise Broken(f"revision {revision[:12]} was overtaken by {status.revision[:12]}: somebody else pushes here.")
    missing = [stage for stage in STAGES if status.stages.get(stage) is None]
    if missing or status.quarantined:
        raise Broken(f"the record lacks {', '.join(missing) or 'nothing'}; problems: {len(status.quarantined)}.")
    applied = [name for name, one in status.agents.items() if one.state == "applied"]
    if not applied:
        raise Broken("no agent has applied the change.")


def _check_served(demo: Demo, check: Check) -> None:
    answer = _ask(demo, check)
    if answer.status_code != check.status:
        raise Broken(f"{check.host} answers {answer.status_code} and not {check.status}.")
    for name, value in check.headers.items():
        if answer.headers.get(name) != value:
            raise Broken(f"{check.host} sends {name}: {answer.headers.get(name)} and not {value}.")


def _ask(demo: Demo, check: Check) -> httpx.Response:
    secure = check.entry_point == "websecure"
    url = f"{'https' if secure else 'http'}://{demo.ports.address(check.entry_point)}{check.path}"
    context = ssl.create_default_context(cafile=demo.folder.ca)
    try:
        with httpx.Client(verify=context, trust_env=False, timeout=SECONDS) as client:
            return client.get(
                url, headers={"Host": check.host} | check.sent, auth=check.user, extensions={"sni_hostname": check.host}
            )
    except httpx.HTTPError as error:
        raise Broken(f"Traefik does not answer for {check.host}: {error}.") from None


def _try_mongodb(demo: Demo, word: str) -> Iterator[str]:
    if demo.programs.mongod is None:
        yield f"MongoDB was not tried: {demo.programs.no_mongod}"
        return
    one = database.uri(demo.folder, demo.target)
    database.write_and_read(one, word)
    yield f"{one.host} keeps what is written through Traefik, by TLS and password"
