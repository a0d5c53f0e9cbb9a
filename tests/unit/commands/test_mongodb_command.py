"""``cloudlunacy mongodb`` in a state repo, without anything running."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest
from pymongo.uri_parser import parse_uri

from reconciler import cli
from reconciler.commands import mongodb_command
from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from reconciler.traefik.sock_diag import Unable
from tests.support import documents
from tests.unit.mongodb.test_places import USER, deployment, route

PASSWORD = "p@ss:w/rd"
HOST = "vps-1.mongodb.cloudlunacy.test"
OPTIONS = "tls=true&authMechanism=SCRAM-SHA-256&directConnection=true&retryWrites=false&serverSelectionTimeoutMS=1500"
URI = f"mongodb://shop:<password>@{HOST}:27017/shop?{OPTIONS}\n"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A state repo whose password is sealed to the control plane of ``data``."""
    recipient = KeyStore(tmp_path / "data" / "keys").recipient()
    files = {
        "fleet.yaml": documents.fleet(recipients=[recipient]),
        "agents/vps-1.yaml": documents.agent("vps-1"),
        "agents/vps-2.yaml": documents.agent("vps-2"),
        "secrets/shop/db.yaml": documents.document(
            "Secret", "db", {"sealed": {"password": seal(PASSWORD, [recipient])}}
        ),
        "deployments/shop/orders.yaml": deployment("orders", "vps-1"),
        "routes/shop/db.yaml": route({"agent": "vps-1", "port": 27117}),
    }
    for name, content in files.items():
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "repo"


def run(*words: str | Path) -> int:
    return cli.run(cli.COMMANDS, ["mongodb", *map(str, words)])


def test_the_password_is_a_gap_unless_it_is_asked_for(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And then it is what was sealed, encoded."""
    assert run("uri", "orders", "--dir", repo) == 0
    assert capsys.readouterr().out == URI
    assert run("uri", "orders", "--dir", repo, "--data", repo.parent / "data") == 0
    assert capsys.readouterr().out == URI
    assert run("uri", "vps-1", "--dir", repo, "--data", repo.parent / "data", "--show-password") == 0
    assert parse_uri(capsys.readouterr().out.strip())["password"] == PASSWORD


def test_a_password_that_is_sealed_to_the_former_identity_opens_too(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the age identity gives way to another, values are sealed to either."""
    store = KeyStore(repo.parent / "data" / "keys")
    store.next_recipient()
    store.promote_next_identity()

    assert run("uri", "vps-1", "--dir", repo, "--data", repo.parent / "data", "--show-password") == 0
    assert parse_uri(capsys.readouterr().out.strip())["password"] == PASSWORD


def test_what_is_in_it_can_be_chosen(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Port, database and roots; the user's own database then stands as authSource."""
    more = ("--port", "7017", "--database", "logs", "--tls-ca-file", __file__, "--format", "json")
    assert run("uri", "db", "--dir", repo, *more) == 0
    [found] = json.loads(capsys.readouterr().out)
    parsed = parse_uri(found["uri"])
    assert (parsed["nodelist"], parsed["database"]) == ([(HOST, 7017)], "logs")
    assert (parsed["options"]["authSource"], parsed["options"]["tlsCAFile"]) == ("shop", __file__)
    assert (found["agent"], found["route"], found["secrets"]) == ("vps-1", "shop/db", ["shop/db"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("uri", "vsp-1"), 'Did you mean "vps-1"?'),
        (("uri", "db", "--user", "shp"), 'has no user "shp". Did you mean "shop"?'),
        (("check", "vsp-1"), 'Did you mean "vps-1"?'),
        (("check", f"mongodb://{HOST}/?tls=false"), "databases are reached over TLS only"),
        (("check", f"mongodb://{HOST}/"), "databases are reached over TLS only"),
        (("check", "mongodb://127.0.0.1/?tls=true"), "sends no server name (SNI)"),
        (("check", URI.strip()), "still has the gap <password>"),
        (("check", f"mongodb://{HOST}:1/?tls=true", "--connect", "127.0.0.1"), "nobody listens"),
        (("check", f"mongodb://{HOST}/?tls=true"), "has no address"),
        (("check", "mongodb://nowhere.invalid/?tls=true", "--ca-file", "/none"), "/none is no file"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    """On stderr, with exit code 1."""
    monkeypatch.chdir(repo)
    real = socket.getaddrinfo

    def answer(name: str, *rest: object, **more: object) -> object:
        if name.endswith(".test"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert run(*words) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("uri", "db", "--show-password"), "needs what opens the secret"),
        (("uri", "db", "--port", "0"), "0 is no port"),
        (("check", "mongodb://a,b/?tls=true"), "several servers"),
        (("check", "mongodb://a:b@c@d/"), "is no connection string that can be used. Every reserved"),
        (("check", "mongodb://a/?tls=true&tlsCAFile=/none"), "No such file"),
        (("check", "mongodb+srv://a.b.c/"), "begins with mongodb://"),
        (("check", "http://a.b.c/"), "begins with mongodb://"),
    ],
)
def test_misuse_is_told(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    """With exit code 2."""
    monkeypatch.chdir(repo)
    assert run(*words) == 2
    assert said in capsys.readouterr().err


def test_a_password_need_not_be_an_argument(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection string may come from standard input; neither it nor the password is shown."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"mongodb://shop:canary@{HOST}:1/?tls=true\n"))
    assert run("check", "-", "--connect", "127.0.0.1", "--format", "json") == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (said["ok"], said["host"], [one["step"] for one in said["steps"]]) == (False, HOST, ["address"])
    assert "canary" not in out + err


def test_connections_are_ended_when_somebody_asks(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those to the agent's port; where the machine does not let us, a sentence says why."""
    asked: list[str] = []

    def ended(backends: list[str]) -> int:
        asked.extend(backends)
        return 3

    monkeypatch.setattr(mongodb_command, "sever", ended)
    assert run("disconnect", "orders", "--dir", repo) == 0
    assert (asked, capsys.readouterr().out) == (["127.0.0.1:27117"], "3 connections to 127.0.0.1:27117 were ended.\n")

    def refused(_: list[str]) -> int:
        raise Unable("only Linux can")

    monkeypatch.setattr(mongodb_command, "sever", refused)
    assert run("disconnect", "orders", "--dir", repo) == 1
    assert "connections cannot be ended: only Linux can. Run it with sudo" in capsys.readouterr().err


def test_a_database_whose_users_nobody_knows_has_gaps(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no deployment is behind the port, and where there are several users."""
    (repo / "routes/shop/db.yaml").write_bytes(route({"agent": "vps-1", "port": 27999}))
    assert run("uri", "vps-1", "--dir", repo) == 0
    assert capsys.readouterr().out.startswith(f"mongodb://<user>:<password>@{HOST}:27017/?tls=true")
    assert run("uri", "vps-1", "--dir", repo, "--user", "me", "--database", "x") == 0
    assert capsys.readouterr().out.startswith(f"mongodb://me:<password>@{HOST}:27017/x?tls=true")
    two = {"version": "6.0", "users": [USER, {**USER, "name": "reader", "role": "read"}]}
    (repo / "deployments/shop/orders.yaml").write_bytes(deployment("orders", "vps-1", mongodb=two))
    (repo / "routes/shop/db.yaml").write_bytes(route({"deployment": "orders"}))
    data = repo.parent / "data"
    assert run("uri", "vps-1", "--dir", repo, "--data", data, "--show-password") == 1
    assert "several users. Name one with --user: shop, reader." in capsys.readouterr().err
