"""A state made again from what a publication keeps."""

from __future__ import annotations

from typing import Final

from reconciler.desired.finding import Finding
from reconciler.desired.parse import Parsed
from reconciler.desired.restore import KeptOut, restore
from reconciler.desired.state import State
from schemas.objects import FLEET_KEY, ObjectKey
from tests.support.documents import agent, blob_of, codes, deployment, fleet, parsed, route, settled, state_of, team

WEB: Final = "routes/shop/web.yaml"
KEY: Final = ObjectKey("Route", "shop", "web")
FILES: Final = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1"])),
    "agents/vps-1.yaml": agent("vps-1", labels={"region": "ams"}),
    "deployments/shop/api.yaml": deployment("api", agentSelector={"region": "ams"}),
    WEB: route("web", "web.app.cloudlunacy.test"),
}
WRONG: Final = Finding(WEB, "yaml-syntax", "no")


def good(*but: str) -> list[Parsed]:
    return [parsed(path, content) for path, content in FILES.items() if path not in but]


def test_a_state_without_problems_needs_only_its_files() -> None:
    """Claims, references and selections follow from the objects."""
    state, again = state_of(FILES), restore("a" * 40, good(), ())
    assert again.served == state.served
    assert again.selected == state.selected == {ObjectKey("Deployment", "shop", "api"): ("vps-1",)}
    assert {name: set(users) for name, users in again.referrers.items()} == {
        name: set(users) for name, users in state.referrers.items()
    }
    assert again.compiled == {}


def test_a_last_good_version_comes_back_with_what_it_was() -> None:
    """Its compiled form and its claims are those of then, though what it refers to may be gone."""
    state = settled(state_of(FILES), {WEB: b"a: ["}).state
    served = state.served[KEY]
    last_good = Parsed(WEB, served.blob, KEY, served.object)
    kept = KeptOut(WEB, "b2", None, (WRONG,), last_good, state.compiled[KEY], served.claims)
    again = restore("b" * 40, good(WEB), [kept])
    assert again.served[KEY] == served
    assert again.compiled == {KEY: state.compiled[KEY]}
    assert (again.blobs, codes(again), dict(again.pending)) == ({WEB: "b2"}, {WEB: ["yaml-syntax"]}, {})


def test_a_quarantined_object_waits_to_become_good() -> None:
    """What can be parsed is looked at again with the next change."""
    newest = parsed(WEB, route("web", "web.app.cloudlunacy.test", backends=[{"agent": "vps-2", "port": 1}]))
    state = restore("b" * 40, good(WEB), [KeptOut(WEB, newest.blob, newest, (WRONG,), None, None)])
    assert KEY not in state.served
    change = {"agents/vps-2.yaml": agent("vps-2"), "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"]))}
    assert codes(settled(state, change).state) == {WEB: ["port-not-granted"]}


def test_a_warning_keeps_nothing_out() -> None:
    """A file with a warning is in service, and is not looked at again without a reason."""
    warning = Finding(WEB, "contested", "hm", severity="warning")
    one = parsed(WEB, FILES[WEB])
    state = restore("b" * 40, good(), [KeptOut(WEB, one.blob, one, (warning,), None, None)])
    assert not state.served[KEY].retained
    assert dict(state.pending) == {}
    assert state.findings == {WEB: (warning,)}


def test_a_fleet_that_is_gone_comes_back_as_the_last_good_one() -> None:
    """A restart while fleet.yaml is missing loses nothing."""
    lost = settled(state_of(FILES), {"fleet.yaml": None}).state
    fleet_file = parsed("fleet.yaml", FILES["fleet.yaml"])
    kept = KeptOut("fleet.yaml", "", None, lost.findings["fleet.yaml"], fleet_file, None)
    again = restore("b" * 40, good("fleet.yaml"), [kept])
    assert again.served == lost.served
    assert again.served[FLEET_KEY].retained


def test_a_revision_without_a_fleet_serves_nothing_by_it() -> None:
    """Objects without a fleet have no claims, and no traceback."""
    again = restore("a" * 40, good("fleet.yaml"), ())
    assert all(one.claims == () for one in again.served.values())
    assert restore("a" * 40, (), ()).served == State().served


def test_the_first_change_after_a_restart_compares_with_what_was_published() -> None:
    """Routes are compiled on demand with the state before, so an address that changes is seen."""
    again = restore("a" * 40, good(), ())
    after = settled(again, {"agents/vps-1.yaml": agent("vps-1", labels={"region": "ams"}, address="10.0.0.9")})
    assert KEY in after.touched
    same = settled(again, {WEB: FILES[WEB]})
    assert same.touched == frozenset()
    assert same.state.served[KEY].blob == blob_of(FILES[WEB])


def test_a_file_that_breaks_together_with_its_agent_keeps_the_old_address() -> None:
    """The last good version is compiled with what it referred to before the restart, not with what is new."""
    before = state_of(FILES)
    change = {WEB: b"a: [", "agents/vps-1.yaml": agent("vps-1", labels={"region": "ams"}, address="10.0.0.9")}
    after = settled(restore("a" * 40, good(), ()), change).state
    assert after.compiled[KEY] == before.compiled[KEY]
