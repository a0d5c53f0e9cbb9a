"""Where the files of services lie, and what the machine has to allow for it."""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from agent.grants import FILE, ServiceGrants
from agent.service_files import Files, Place, ServiceFiles, ServiceName
from reconciler.pki.service_issuer import ServiceIssuer
from schemas.service_tls import Installation
from tests.support.service_world import ID, World, files, grant, item, leaf, pair_in

NAME = ServiceName("shop", "orders")


def test_a_directory_needs_a_grant(world: World, tmp_path: Path) -> None:
    """Without one nothing is asked; with one the files lie there."""
    place = tmp_path / "etc"
    place.mkdir()
    wanted = item(directory=str(place / "orders"))
    result = world.apply(wanted)[ID]
    assert (result.state, result.reason) == ("Failed", "NotGranted")
    assert "grants.toml" in result.message
    world.connect()
    world.step()
    assert not world.asked
    grant(world, f'directories = ["{place}"]')
    world.step(30)
    world.answer(wanted)
    assert world.apply(wanted)[ID].state == "Applied"
    assert pair_in(place / "orders")
    world.apply()
    assert list(place.iterdir()) == []


def test_a_move_takes_the_certificate_along(world: World, tmp_path: Path) -> None:
    """Another directory is no reason for another certificate, and nothing stays in the former one."""
    wanted = item()
    world.issue(wanted)
    serial = leaf(files(world)).serial_number
    place = tmp_path / "etc"
    place.mkdir()
    grant(world, f'directories = ["{place}"]')
    moved = item(directory=str(place / "orders"))
    assert world.apply(moved)[ID].state == "Applied"
    assert leaf(place / "orders").serial_number == serial
    assert not files(world).exists()
    world.step()
    assert not world.asked


@pytest.mark.parametrize("where", ["{0}/link/orders", "{0}", "{1}/orders"], ids=["symlink", "itself", "elsewhere"])
def test_no_way_leads_out_of_what_is_granted(world: World, tmp_path: Path, where: str) -> None:
    """Neither a symbolic link below it, nor its own name."""
    place, outside = tmp_path / "etc", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    (place / "link").symlink_to(outside)
    grant(world, f'directories = ["{place}"]')
    assert world.apply(item(directory=where.format(place, outside)))[ID].reason == "NotGranted"


def test_what_lies_there_already_is_not_replaced(world: World, tmp_path: Path) -> None:
    """A file or directory of somebody else stays."""
    place = tmp_path / "etc"
    (place / "orders").mkdir(parents=True)
    (place / "orders" / "mine").write_text("mine")
    grant(world, f'directories = ["{place}"]')
    assert world.issue(item(directory=str(place / "orders"))).reason == "NotInstalled"
    assert (place / "orders" / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "item_id",
    ["Certificate/../escape", "Certificate/shop/..", "Certificate/a.b/c", "Certificate/shop/x/y", "Certificate//x"],
)
def test_no_id_names_another_folder(world: World, item_id: str) -> None:
    """What is no team and deployment is no service, and nothing is written for it."""
    assert world.apply(item(item_id))[item_id].reason == "Recorded"
    assert not (world.data / "services").exists()


def test_two_services_cannot_share_a_directory(world: World, tmp_path: Path) -> None:
    """The first has it, the other is told."""
    place = tmp_path / "etc"
    place.mkdir()
    grant(world, f'directories = ["{place}"]')
    one = item(directory=str(place / "orders"))
    other = item("Certificate/shop/zoo", directory=str(place / "orders"))
    results = world.apply(one, other)
    assert results[ID].state == "Progressing"
    assert results[other.id].reason == "NotGranted"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to a group")
def test_a_group_may_read_if_it_is_granted(world: World, tmp_path: Path) -> None:
    """Then directory and files are its, and nobody else's."""
    place = tmp_path / "etc"
    place.mkdir()
    wanted = item(directory=str(place / "orders"), group="daemon")
    grant(world, f'directories = ["{place}"]')
    assert world.apply(wanted)[ID].reason == "NotGranted"
    grant(world, f'directories = ["{place}"]\ngroups = ["daemon"]')
    assert world.issue(wanted).state == "Applied"
    directory = (place / "orders").resolve()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    assert {(path.group(), stat.S_IMODE(path.stat().st_mode)) for path in directory.iterdir()} == {("daemon", 0o640)}


@pytest.mark.parametrize(
    ("text", "mode"),
    [("directories = [", 0o600), ("no-such = 1", 0o600), ("", 0o622), ('[services.commands]\na = "sh"', 0o600)],
    ids=["no-toml", "unknown", "writable", "no-list"],
)
def test_grants_that_cannot_be_believed_grant_nothing(world: World, text: str, mode: int) -> None:
    """What needs none of them goes on."""
    grant(world, text)
    (world.data / FILE).chmod(mode)
    results = world.apply(item(), item("Certificate/shop/zoo", directory="/etc/zoo"))
    assert results[ID].state == "Progressing"
    assert results["Certificate/shop/zoo"].reason == "NotGranted"


def test_a_kill_at_any_write_leaves_a_pair(tmp_path: Path, service_issuer: ServiceIssuer) -> None:
    """The process is ended at each step in turn; what is in place is whole, and what is left over goes."""
    world = World(tmp_path, service_issuer)
    wanted = item()
    world.issue(wanted)
    place = ServiceFiles(tmp_path)
    key, chain, roots = ((files(world) / name).read_bytes() for name in ("tls.key", "tls.crt", "ca.crt"))
    for step in range(1, 60):
        child = os.fork()
        if child == 0:
            _die_at(step, place, Files(key, chain, roots, 0.0))
        _, status = os.waitpid(child, 0)
        found = place.load(NAME, _place(place))
        assert found is not None
        assert pair_in(files(world))
        if os.WIFEXITED(status):
            break
    assert os.WEXITSTATUS(status) == 0
    assert step > 5
    names = [path.name for path in files(world).parent.iterdir()]
    assert len([name for name in names if name.startswith("orders.") and name != "orders.json"]) == 2
    assert not [name for name in names if name.startswith(".orders.") and not name.endswith(".lock")]


def _place(place: ServiceFiles) -> Place:
    return place.place(NAME, Installation(), ServiceGrants())


def _die_at(step: int, place: ServiceFiles, content: Files) -> None:
    """In a child: install, and be killed at the nth file that is opened, renamed, linked, made or removed."""
    count = 0

    def counted(event: str, _: object) -> None:
        nonlocal count
        if event in ("os.rename", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "open"):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        where = _place(place)
        sys.addaudithook(counted)
        place.install(NAME, where, content)
        code = 0
    finally:
        os._exit(code)
