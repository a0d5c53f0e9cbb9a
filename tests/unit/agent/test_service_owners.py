"""What lies in a directory belongs to one service, and no document makes it another's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.swapped_directory import SwappedDirectory
from schemas.session import Item, ItemResult
from tests.support.service_world import DAY, ID, World, files, grant, item, pair_in

EVIL = "Certificate/aaa/evil"
RENAMED = "Certificate/shop/orders2"
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to a group")


@pytest.fixture
def place(world: World, tmp_path: Path) -> Path:
    """A directory that the machine allows, for two groups where these can be given."""
    found = tmp_path / "etc"
    found.mkdir()
    grant(world, f'directories = ["{found}"]\ngroups = ["daemon", "games"]')
    return found


def owned(world: World, directory: Path, **spec: Any) -> tuple[Item, bytes]:
    """Put the certificate of shop/orders there; return its item and key."""
    wanted = item(directory=str(directory), **spec)
    assert world.issue(wanted).state == "Applied"
    return wanted, (directory / "tls.key").read_bytes()


def play(world: World, *items: Item) -> dict[str, ItemResult]:
    """Give a document, answer whatever is asked, for some time, and say how it stands."""
    world.apply(*items)
    world.connect()
    for _ in range(3):
        world.step(60)
        while world.asked:
            world.answer(next(one for one in items if one.id == world.asked[0].id))
    return world.apply(*items)


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("group", [{}, pytest.param({"group": "games"}, marks=ROOT)], ids=["no-group", "group"])
def test_a_service_that_comes_later_gets_nothing_of_what_is_there(
    world: World, place: Path, group: dict[str, str], restart: bool
) -> None:
    """Also where it stands first in the document; and when it goes again, it takes nothing along."""
    wanted, key = owned(world, place / "orders")
    status = (place / "orders" / "tls.key").stat()
    evil = item(EVIL, directory=str(place / "orders"), **group)
    if restart:
        world.restart()
    results = play(world, evil, wanted)
    assert (results[ID].state, results[EVIL].reason) == ("Applied", "NotGranted")
    assert "shop/orders" in results[EVIL].message
    assert (place / "orders" / "tls.key").read_bytes() == key
    now = (place / "orders" / "tls.key").stat()
    assert (now.st_gid, now.st_mode) == (status.st_gid, status.st_mode)
    assert play(world, wanted)[ID].state == "Applied"
    assert (place / "orders" / "tls.key").read_bytes() == key


def test_the_owner_of_files_stays_while_it_may_not_have_them_there(world: World, place: Path) -> None:
    """A grant that is withdrawn for a while, or an item that is not understood, gives its place to nobody."""
    wanted, key = owned(world, place / "orders")
    unknown = wanted.model_copy(update={"spec": {"no": "such"}, "digest": "0" * 64})
    evil = item(EVIL, directory=str(place / "orders"))
    assert play(world, evil, unknown)[EVIL].reason == "NotGranted"
    assert (place / "orders" / "tls.key").read_bytes() == key
    grant(world, "")
    world.apply(evil, wanted)
    grant(world, f'directories = ["{place}"]')
    results = play(world, evil, wanted)
    assert (results[ID].state, results[EVIL].reason) == ("Applied", "NotGranted")


@pytest.mark.parametrize(
    "where",
    ["orders/sub", "orders.1/sub", "orders.1/tls.key", "Orders", "../data/services/shop/web", "../data/certificate"],
)
def test_no_other_way_leads_into_the_files_of_another(world: World, place: Path, tmp_path: Path, where: str) -> None:
    """Neither below, nor as one of the directories behind a link, nor in capitals, nor where the agent has its own."""
    owned(world, place / "orders")
    web = item("Certificate/shop/web")
    grant(world, f'directories = ["{tmp_path}"]')
    evil = item(EVIL, directory=os.path.normpath(place / where))
    results = play(world, evil, item(directory=str(place / "orders")), web)
    assert results[EVIL].reason in ("NotGranted", "NotInstalled")
    assert {results[ID].state, results[web.id].state} == {"Applied"}
    assert sorted(path.name for path in (place / "orders").iterdir()) == [
        "ca.crt",
        "received.json",
        "tls.crt",
        "tls.key",
        "tls.pem",
    ]


def test_nobody_waits_where_another_will_have_its_place(world: World, tmp_path: Path) -> None:
    """The agent's data directory is no place to ask for, whatever is granted."""
    (world.data / "services" / "shop").mkdir(parents=True)
    grant(world, f'directories = ["{tmp_path}"]')
    evil = item(EVIL, directory=str(files(world)))
    assert play(world, evil)[EVIL].reason == "NotGranted"
    assert play(world, evil, item())[ID].state == "Applied"


def test_a_second_name_of_a_directory_is_the_same_directory(world: World, place: Path, tmp_path: Path) -> None:
    """A granted symbolic link to another granted one makes no second place."""
    (tmp_path / "alias").symlink_to(place)
    grant(world, f'directories = ["{place}", "{tmp_path}/alias"]')
    wanted, key = owned(world, place / "orders")
    results = play(world, item(EVIL, directory=f"{tmp_path}/alias/orders"), wanted)
    assert results[EVIL].reason == "NotGranted"
    assert (place / "orders" / "tls.key").read_bytes() == key
    assert play(world, item(directory=f"{tmp_path}/alias/orders"))[ID].state == "Applied"
    assert (place / "orders" / "tls.key").read_bytes() == key, "a move to where it is loses nothing"


@pytest.mark.parametrize("last", ["db.7", ".db.lock", ".db", "db.999999999999999999"])
def test_names_that_agents_make_themselves_are_no_directories(world: World, place: Path, last: str) -> None:
    """Otherwise one service's link could pass for what another's left."""
    with pytest.raises(ValueError, match="its last part may not"):
        item(directory=str(place / last))


def test_a_name_beside_it_does_not_end_renewals(world: World, place: Path) -> None:
    """Whatever others have beside a directory is neither counted nor removed."""
    strange = place / "orders.999999999999999999"
    strange.mkdir()
    (strange / "mine").write_text("mine")
    (place / "orders.5").symlink_to(strange)
    wanted, key = owned(world, place / "orders")
    for _ in range(3):
        world.step(DAY / 2)
        world.answer(wanted)
        assert (place / "orders" / "tls.key").read_bytes() != key
        key = (place / "orders" / "tls.key").read_bytes()
    assert (strange / "mine").exists()
    ours = [one for one in place.iterdir() if one.is_dir() and not one.is_symlink() and one != strange]
    assert len(ours) == 2


def test_a_new_name_in_the_same_directory_loses_no_file(world: World, place: Path) -> None:
    """Within a team: the files stay until the first certificate of the new name replaces them."""
    _, key = owned(world, place / "orders")
    renamed = item(RENAMED, directory=str(place / "orders"), dnsNames=["orders2.vps-1.agents.cloudlunacy.test"])
    assert world.apply(renamed)[RENAMED].state == "Progressing"
    assert (place / "orders" / "tls.key").read_bytes() == key
    assert json.loads((place / "orders" / "received.json").read_text())["owner"] == "shop/orders2"
    assert play(world, renamed)[RENAMED].state == "Applied"
    assert (place / "orders" / "tls.key").read_bytes() != key
    assert pair_in(place / "orders")
    world.apply()
    assert list(place.iterdir()) == []


def test_another_team_inherits_nothing(world: World, place: Path) -> None:
    """It may have the directory once the owner is gone, empty."""
    _, key = owned(world, place / "orders")
    evil = item(EVIL, directory=str(place / "orders"))
    world.apply(evil)
    assert not (place / "orders").exists()
    assert not [one for one in place.rglob("tls.key") if one.read_bytes() == key]
    assert play(world, evil)[EVIL].state == "Applied"


def test_what_one_leaves_another_may_have_in_the_same_document(world: World, place: Path) -> None:
    """Wherever they stand in it."""
    _, key = owned(world, place / "orders")
    moved = item(directory=str(place / "zoo"))
    evil = item(EVIL, directory=str(place / "orders"))
    results = world.apply(evil, moved)
    assert (results[ID].state, results[EVIL].state) == ("Applied", "Progressing")
    assert (place / "zoo" / "tls.key").read_bytes() == key
    assert not (place / "orders").exists()


@ROOT
def test_a_group_that_loses_a_key_cannot_read_it_in_the_former_directory(world: World, place: Path) -> None:
    """The directory that it could read goes at once."""
    owned(world, place / "orders", group="games")
    world.apply(item(directory=str(place / "orders"), group="daemon"))
    assert {path.group() for path in place.rglob("tls.*")} == {"daemon"}


def test_files_of_an_older_agent_belong_to_whom_it_wrote_down(world: World, place: Path) -> None:
    """It noted no owner beside them."""
    wanted, key = owned(world, place / "orders")
    received = place / "orders" / "received.json"
    said = json.loads(received.read_text())
    del said["owner"]
    received.write_text(json.dumps(said))
    world.restart()
    results = play(world, item(EVIL, directory=str(place / "orders")), wanted)
    assert (results[ID].state, results[EVIL].reason) == ("Applied", "NotGranted")
    assert (place / "orders" / "tls.key").read_bytes() == key


def test_a_link_of_somebody_else_is_not_replaced(world: World, place: Path, tmp_path: Path) -> None:
    """What lies there without being a service's is nobody's to have."""
    (tmp_path / "elsewhere").mkdir()
    (place / "orders").symlink_to(tmp_path / "elsewhere")
    assert play(world, item(directory=str(place / "orders")))[ID].reason == "NotGranted"
    assert (place / "orders").readlink() == tmp_path / "elsewhere"


def test_an_agents_own_files_are_swapped_as_before(tmp_path: Path) -> None:
    """With nobody else about: two directories at most, numbered on, past the highest number too."""
    one = SwappedDirectory(tmp_path / "db")
    (tmp_path / "db.999999999999999999").mkdir()
    for number in range(4):
        one.put({"a": str(number).encode()})
        assert (tmp_path / "db" / "a").read_bytes() == str(number).encode()
    assert len(list(tmp_path.glob("db.*"))) == 2


def test_files_of_no_team_are_where_they_were(world: World) -> None:
    """Without a directory of its own a service has its place by its name."""
    assert world.issue(item()).state == "Applied"
    assert json.loads((files(world) / "received.json").read_text())["owner"] == "shop/orders"
