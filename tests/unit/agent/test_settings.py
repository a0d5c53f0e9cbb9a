"""What whoever looks after a machine says of the agent on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.deployments.local_engine import is_local
from agent.deployments.shared_directories import SharedDirectory
from agent.keys import Unusable
from agent.settings import ENGINES, FILE, AgentSettings, load


def write(data: Path, text: str, mode: int = 0o600) -> None:
    (data / FILE).write_text(text)
    (data / FILE).chmod(mode)


def test_without_a_file_everything_has_its_usual_value(tmp_path: Path) -> None:
    """The first engine that is there, the agent's own address, all of the range."""
    found = load(tmp_path, engine=None, publish=(), ports=None)
    assert found == AgentSettings()
    assert found.socket in ENGINES
    assert (found.ports.first, found.ports.last) == (20000, 29999)


def test_a_flag_goes_before_the_file(tmp_path: Path) -> None:
    """What is not given on the command line is what the file says."""
    write(
        tmp_path, 'engine = "unix:///run/other.sock"\npublish = ["192.0.2.1"]\nports = { first = 20000, last = 20099 }'
    )
    found = load(tmp_path, engine="off", publish=(), ports={"first": "21000", "last": "21999"})
    assert (found.socket, found.publish, found.ports.first) == (None, ("192.0.2.1",), 21000)
    assert load(tmp_path).socket == Path("/run/other.sock")


@pytest.mark.parametrize(
    "text",
    [
        'engine = "tcp://192.0.2.1"',
        'publish = ["example.com"]',
        "ports = { first = 80, last = 90 }",
        "ports = { first = 29000, last = 20000 }",
        "unknown = 1",
        "engine = ",
    ],
)
def test_what_cannot_be_understood_keeps_the_agent_from_beginning(tmp_path: Path, text: str) -> None:
    """With other settings than were meant it might do harm; it says which file is wrong."""
    write(tmp_path, text)
    with pytest.raises(Unusable, match=FILE):
        load(tmp_path)


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    """Whoever may choose the engine's socket may do with the machine what root may."""
    write(tmp_path, 'engine = "/tmp/mine.sock"', mode=0o666)
    with pytest.raises(Unusable, match="chmod"):
        load(tmp_path)


def test_a_socket_in_a_folder_of_somebody_else_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman's folder is root's alone; an agent of another user begins all the same."""

    def closed(_path: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", closed)
    assert load(tmp_path).socket == ENGINES[0]


@pytest.mark.parametrize(
    ("address", "here"),
    [("127.0.0.1", True), ("203.0.113.7", False), ("example.com", False), ("", False), ("::1", False)],
)
def test_ports_are_published_at_an_address_of_this_machine(address: str, here: bool) -> None:
    """One that only leads here, through somebody else's NAT, cannot be listened at."""
    assert is_local(address) is here


def test_directories_are_shared_by_name_with_teams(tmp_path: Path) -> None:
    """The owner's table says what, with whom and how; an entry that names nobody is refused."""
    file = tmp_path / FILE
    file.write_text('[directories.media]\npath = "/srv/media"\nteams = ["shop"]\nread-only = true\n')
    file.chmod(0o600)
    assert load(tmp_path).shared == {"media": SharedDirectory("/srv/media", frozenset({"shop"}), read_only=True)}
    for wrong in ('path = "/srv/media"', 'path = "srv"\nteams = ["shop"]'):
        file.write_text(f"[directories.media]\n{wrong}\n")
        with pytest.raises(Unusable, match=r"directories\.media"):
            load(tmp_path)


def test_programs_of_a_team_may_run_as_the_users_that_are_listed(tmp_path: Path) -> None:
    """The owner's list says which ids; without it there are none."""
    assert load(tmp_path).processes.users == {}
    write(tmp_path, "[processes]\nusers = { shop = [1500, 1501] }\n")
    assert load(tmp_path).processes.users == {"shop": (1500, 1501)}


@pytest.mark.parametrize(
    "ids", ["[0]", "[-1]", "[1900000000]", "[1999999999]", "[2147483648]", '["1500"]', "[true]", "[]"]
)
def test_what_is_nobodys_to_grant_keeps_the_agent_from_beginning(tmp_path: Path, ids: str) -> None:
    """Root, ids that deployments get by themselves, and what is no id of a user."""
    write(tmp_path, f"[processes.users]\nshop = {ids}\n")
    with pytest.raises(Unusable, match=r"processes\.users\.shop"):
        load(tmp_path)
