"""What is said where the fleet takes a grant back and the last good version goes on."""

from __future__ import annotations

from typing import Final

import pytest

from reconciler.desired.plan import make_plan
from reconciler.desired.revoked import STAYS, findings_of, revoked
from reconciler.desired.state import State
from tests.support.documents import agent, certificate, codes, deployment, fleet, route, settled, state_of, team

WEB: Final = "routes/shop/web.yaml"
APP: Final = "deployments/shop/app.yaml"
NAMES: Final = "certificates/www.yaml"
HOSTS: Final = ("*.app.cloudlunacy.test", "www.example.test")
FILES: Final[dict[str, bytes]] = {
    "fleet.yaml": fleet(team("shop", hostnames=HOSTS, agents=["vps-1", "vps-2"])),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2"),
    WEB: route("web", "www.example.test", backends=[{"agent": "vps-2", "port": 8081}]),
    APP: deployment("app", "vps-2", port=8090),
    NAMES: certificate("www", "www.example.test"),
}


def after(changed: dict[str, bytes | None], before: State | None = None) -> State:
    return settled(state_of(dict(FILES)) if before is None else before, changed, "b" * 40).state


def hints(state: State, path: str) -> list[str]:
    return [finding.hint for finding in findings_of(state).get(path, ())]


@pytest.mark.parametrize(
    ("teams", "expected"),
    [
        ([team("shop", hostnames=HOSTS, agents=["vps-1"])], {WEB: "agent-not-granted", APP: "agent-not-granted"}),
        (
            [team("shop", hostnames=HOSTS[:1], agents=["vps-1", "vps-2"])],
            {WEB: "host-not-owned", NAMES: "name-not-owned"},
        ),
        ([team("blog", hostnames=HOSTS)], {WEB: "unknown-team", APP: "unknown-team"}),
    ],
    ids=["agent", "host", "team"],
)
def test_what_lost_its_grant_and_serves_on_is_listed(teams: list[object], expected: dict[str, str]) -> None:
    """An agent, a host or a whole team that the fleet takes back: plan and hint name each file that serves on."""
    state = after({"fleet.yaml": fleet(*teams)})
    assert codes(state) == {path: [code] for path, code in expected.items()}
    assert revoked(state) == tuple(sorted(expected))
    for path in expected:
        assert hints(state, path)[0].endswith(STAYS)
    change = settled(state_of(dict(FILES)), {"fleet.yaml": fleet(*teams)}, "b" * 40)
    assert make_plan(state_of(dict(FILES)), change).revoked == tuple(sorted(expected))


def test_a_broken_file_does_not_hide_it() -> None:
    """A team that breaks the file, before or after, keeps what was granted, and that is still said."""
    fewer = {"fleet.yaml": fleet(team("shop", hostnames=HOSTS[:1], agents=["vps-1", "vps-2"]))}
    for first, second in ((fewer, {WEB: b"a: ["}), ({WEB: b"a: ["}, fewer)):
        state = after(dict(second), after(dict(first)))
        assert WEB in revoked(state)
        assert hints(state, WEB)[0].endswith(STAYS)


def test_a_problem_of_another_kind_says_nothing_of_grants() -> None:
    """What was never granted, what is broken and what was never good are problems without that sentence."""
    for change in (route("web", "www.elsewhere.test"), b"a: [", route("web", backends=[{"agent": "no", "port": 8081}])):
        state = after({WEB: change})
        assert (list(codes(state)), revoked(state)) == ([WEB], ())
        assert STAYS not in " ".join(hints(state, WEB))
    never_good = after({"routes/shop/new.yaml": route("new", "www.elsewhere.test")})
    assert (list(codes(never_good)), revoked(never_good)) == (["routes/shop/new.yaml"], ())


def test_it_ends_with_the_file() -> None:
    """Mended or deleted, nothing serves without its grant any more."""
    state = after({"fleet.yaml": fleet(team("shop", hostnames=HOSTS[:1], agents=["vps-1", "vps-2"])), NAMES: None})
    assert revoked(state) == (WEB,)
    assert revoked(after({WEB: None}, state)) == ()
    assert revoked(after({WEB: route("web")}, state)) == ()
