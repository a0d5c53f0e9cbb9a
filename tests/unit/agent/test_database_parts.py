"""What a database is made of, what is kept of it, and what is said of it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent.deployments.mongodb import Databases
from agent.deployments.mongodb_archive import is_archive_id
from agent.deployments.mongodb_files import DatabaseFiles, Record
from agent.deployments.mongodb_workload import PROBE, cache_gib, lowered
from agent.deployments.standby import Standby
from agent.deployments.workload import Key, Workload
from agent.sealing import BadSeal, Sealer
from agent.settings import Processes
from schemas.deployment import DeploymentSpec
from schemas.session import ItemResult

KEY: Final = Key("shop", "orders")
SEALER: Final = Sealer(ec.generate_private_key(ec.SECP256R1()))
USER: Final = {"name": "shop", "database": "shop", "password": {"name": "db", "key": "password"}}


def workload(version: str = "6.0", mongodb: Any = None, **spec: Any) -> Workload:
    whole = {"version": version, "users": [USER], **(mongodb or {})}
    ports = [{"container": 27017, "host": 27117}]
    found = {"type": "mongodb", "agents": ["vps-1"], "mongodb": whole, "ports": ports, **spec}
    return Workload(KEY, DeploymentSpec.model_validate(found), "sha256:x")


def made(wanted: Workload, runtime: Any = "container") -> Workload:
    assert wanted.spec.mongodb is not None
    mongod = "mongod" if runtime == "container" else "/opt/mongod"
    return lowered(wanted, runtime, version=wanted.spec.mongodb.version, image=None, mongod=mongod)


def option(found: Workload, name: str) -> str:
    command = found.spec.command
    return command[command.index(name) + 1]


def test_mongod_answers_over_tls_to_users_alone() -> None:
    """Whatever else is written, these stand in its command line, and no password does."""
    found = made(workload())
    assert found.spec.image == "mongo:6.0"
    assert found.spec.command[0] == "mongod"
    assert "--auth" in found.spec.command
    assert option(found, "--tlsMode") == "requireTLS"
    assert option(found, "--setParameter") == "authenticationMechanisms=SCRAM-SHA-256"
    assert option(found, "--tlsCertificateKeyFile") == "/run/cloudlunacy/tls/tls.pem"
    assert found.spec.user == "999:999"
    assert [(one.name, one.path) for one in found.spec.volumes] == [("data", "/data/db")]
    assert (found.spec.env, found.spec.secrets, found.secrets_version) == ({}, (), "")


SAME: Final = [
    workload(mongodb={"users": []}),
    workload(mongodb={"backup": {"every": "1h"}, "storage": "1Gi"}),
    workload(deletionPolicy="delete"),
]
OTHER: Final = [
    workload("7.0"),
    workload(mongodb={"image": "mongo:6.0.27"}),
    workload(resources={"memory": "4Gi"}),
    workload(ports=[{"container": 27017, "host": 27118}]),
]


def test_users_and_backups_restart_nothing() -> None:
    """Versions, limits and ports do; another version of the secrets does not."""

    def digest(one: Workload) -> str:
        image = one.spec.mongodb.image if one.spec.mongodb is not None else None
        return lowered(one, "container", version=one.spec.mongodb.version, image=image).digest  # type: ignore[union-attr]

    usual = digest(workload())
    assert {digest(one) for one in (*SAME, replace(workload(), secrets_version="y"))} == {usual}
    assert usual not in {digest(one) for one in OTHER}


def test_a_process_listens_where_others_find_it() -> None:
    """At the port of the machine, with the program that the machine names."""
    found = made(workload(), "process")
    assert (found.spec.type, found.spec.image, found.spec.user) == ("process", None, None)
    assert found.spec.command[0] == "/opt/mongod"
    assert option(found, "--port") == "27117"
    assert [(one.container, one.host) for one in found.spec.ports] == [(27117, 27117)]


def test_the_health_check_is_the_agents_own() -> None:
    """With the times that the file says."""
    check = made(workload(healthCheck={"tcp": {"port": 27017}, "interval": "2s", "failures": 7})).spec.health_check
    assert check is not None
    assert check.command is not None
    assert (check.command.command, check.tcp, check.interval, check.failures) == (PROBE, None, "2s", 7)


@pytest.mark.parametrize(
    ("memory", "gib"), [(None, None), ("512Mi", 0.25), ("1Gi", 0.25), ("2Gi", 0.5), ("5Gi", 2.0), ("16Gi", 7.5)]
)
def test_the_cache_follows_the_memory(memory: str | None, gib: float | None) -> None:
    """As mongod reckons for a whole machine, and never below what it takes."""
    assert cache_gib(memory) == gib


RECORD: Final = Record("container", "6.0", None, "s3cret", feature_version="6.0", ran="6.0.5", address="a", port=5)


def test_mongod_reaches_its_certificate_and_socket_whatever_the_umask_of_the_agent_is(tmp_path: Path) -> None:
    """systemd gives the agent 077, and mongod is another user."""
    files, held = DatabaseFiles(tmp_path, SEALER), tmp_path / "held"
    held.mkdir()
    (held / "ca.crt").write_bytes(b"roots")
    (held / "tls.pem").write_bytes(b"certificate")
    umask = os.umask(0o077)
    try:
        files.save(KEY, RECORD)
        files.put_certificate(KEY, held)
    finally:
        os.umask(umask)
    home = files.home(KEY)
    names = ("tls", "tls/ca.crt", "tls/tls.pem", "socket")
    assert [stat.S_IMODE((home / name).stat().st_mode) for name in names] == [0o755, 0o644, 0o644, 0o777]


def test_a_record_comes_back_and_is_sealed(tmp_path: Path) -> None:
    """For this agent alone, and for this database alone; the rest of the machine is kept out."""
    files = DatabaseFiles(tmp_path, SEALER)
    files.save(KEY, RECORD)
    assert files.load() == {KEY: RECORD}
    path = files.home(KEY) / "record.json"
    assert "s3cret" not in path.read_text()
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (path, files.home(KEY), tmp_path / "mongodb")]
    assert modes == [0o600, 0o700, 0o700]
    other = files.home(Key("shop", "other"))
    other.mkdir()
    (other / "record.json").write_bytes(path.read_bytes())
    assert files.load() == {KEY: RECORD}
    assert DatabaseFiles(tmp_path, Sealer(ec.generate_private_key(ec.SECP256R1()))).load() == {}


def test_backups_outlive_the_data(tmp_path: Path) -> None:
    """When a database is forgotten its archives stay; without any nothing stays."""
    files = DatabaseFiles(tmp_path, SEALER)
    files.save(KEY, RECORD)
    (files.home(KEY) / "backups").mkdir()
    (files.home(KEY) / "backups" / "one.tar.gz").write_bytes(b"x")
    files.forget(KEY)
    assert [one.name for one in files.home(KEY).iterdir()] == ["backups"]
    (files.home(KEY) / "backups" / "one.tar.gz").unlink()
    files.forget(KEY)
    files.forget(KEY)
    assert not files.home(KEY).exists()


def test_a_certificate_is_copied_when_it_is_another(tmp_path: Path) -> None:
    """Readable for whoever sees the directory, whoever mongod is there."""
    files = DatabaseFiles(tmp_path, SEALER)
    files.save(KEY, RECORD)
    held = tmp_path / "held"
    held.mkdir()
    for name in ("tls.pem", "ca.crt"):
        (held / name).write_text(name)
    assert files.put_certificate(KEY, held)
    assert not files.put_certificate(KEY, held)
    (held / "tls.pem").write_text("another")
    assert files.put_certificate(KEY, held)
    copied = files.home(KEY) / "tls" / "tls.pem"
    assert (copied.read_text(), stat.S_IMODE(copied.stat().st_mode)) == ("another", 0o644)


def test_what_is_sealed_is_of_one_context() -> None:
    """It opens for the same one only."""
    sealed = SEALER.seal(b"value", "one")
    assert SEALER.open(sealed, "one") == b"value"
    for wrong, context in ((sealed, "two"), (sealed[:-1], "one"), (b"", "one")):
        with pytest.raises(BadSeal):
            SEALER.open(wrong, context)


@pytest.mark.parametrize("word", ["", "..", "../x", "20261122T114500Z-Asked", "20261122T114500Z-asked/..", "x" * 80])
def test_no_word_leads_out_of_the_directory(word: str) -> None:
    """Only ids that were given are looked for."""
    assert not is_archive_id(word)
    assert is_archive_id("20261122T114500Z-asked-2")


def databases(tmp_path: Path, *runtimes: Any) -> Databases:
    held: Any = lambda _team, _name: object()  # noqa: E731
    return Databases(DatabaseFiles(tmp_path, SEALER), runtimes, held=held)


def test_where_a_database_runs_follows_from_git(tmp_path: Path) -> None:
    """Its file, else what its agent is for; where its data is, it stays, and says so."""
    found = databases(tmp_path, "container", "process")
    found.capabilities = frozenset({"container", "process", "mongodb"})
    assert kind(found.lowered(workload())) == "container"
    found.capabilities = frozenset({"process", "mongodb"})
    assert kind(found.lowered(workload())) == "process"
    assert kind(found.lowered(workload(mongodb={"runtime": "container"}))) == "container"
    found.records[KEY] = RECORD
    assert kind(found.lowered(workload(mongodb={"runtime": "process"}))) == "container"
    said = found.result(KEY, ItemResult(id=str(KEY), state="Applied", reason="Running"))
    assert (said.state, said.reason) == ("Failed", "RuntimeKept")


def test_a_new_database_runs_as_what_the_machine_can(tmp_path: Path) -> None:
    """Among what the agent is for; its file and what has begun come before that; where none can the first says so."""
    can = {"process"}
    held: Any = lambda _team, _name: object()  # noqa: E731
    files = DatabaseFiles(tmp_path, SEALER)
    found = Databases(files, ["container", "process"], held=held, able=lambda runtime, _version: runtime in can)
    found.capabilities = frozenset({"container", "process", "mongodb"})
    assert kind(found.lowered(workload())) == "process"
    assert kind(found.lowered(workload(mongodb={"runtime": "container"}))) == "container"
    found.capabilities = frozenset({"container", "mongodb"})
    assert kind(found.lowered(workload())) == "container"
    found.capabilities = frozenset({"container", "process", "mongodb"})
    can.clear()
    assert kind(found.lowered(workload())) == "container"
    can.add("process")
    found.records[KEY] = RECORD
    assert kind(found.lowered(workload())) == "container"


def kind(found: Workload | Standby) -> str:
    assert isinstance(found, Workload)
    return found.spec.type


def test_an_agent_without_the_means_says_so(tmp_path: Path) -> None:
    """Nothing is started, and nothing that runs is touched."""
    found = databases(tmp_path).lowered(workload(mongodb={"runtime": "process"}))
    assert isinstance(found, Standby)
    assert (found.state, found.reason) == ("Failed", "Unsupported")


def test_a_version_that_may_not_have_the_data_is_not_let_to_it(tmp_path: Path) -> None:
    """What runs goes on with its version and image; users and limits follow the file."""
    found = databases(tmp_path, "container")
    found.records[KEY] = replace(RECORD, image="mongo:6.0.27")
    other = found.lowered(workload("8.0", resources={"memory": "2Gi"}))
    assert isinstance(other, Workload)
    assert (other.spec.image, other.spec.resources.memory) == ("mongo:6.0.27", "2Gi")
    said = found.result(KEY, ItemResult(id=str(KEY), state="Applied", reason="Running"))
    assert (said.state, said.reason) == ("Failed", "UpgradeRefused")
    assert "Version 6.0.5 runs on." in said.message
    taken = found.lowered(workload("7.0"))
    assert isinstance(taken, Workload)
    assert taken.spec.image == "mongo:7.0"


def test_a_first_version_that_never_ran_may_be_another(tmp_path: Path) -> None:
    """Neither its version nor its runtime counts, for there is no data; the password stays, for mongod may know it."""
    held = tmp_path / "held"
    held.mkdir()
    for name in ("tls.pem", "ca.crt"):
        (held / name).write_text(name)

    def agent() -> Databases:
        """As after a restart."""
        certificate: Any = lambda _team, _name: SimpleNamespace(directory=held)  # noqa: E731
        return Databases(DatabaseFiles(tmp_path, SEALER), ["container", "process"], held=certificate)

    first = agent()
    assert kind(first.lowered(workload("9.9", mongodb={"runtime": "container"}))) == "container"
    first.prepare(KEY)
    for wanted in (workload("6.0", mongodb={"runtime": "container"}), workload("7.0", mongodb={"runtime": "process"})):
        mongodb = wanted.spec.mongodb
        assert mongodb is not None
        corrected = agent()
        made = corrected.lowered(wanted)
        assert isinstance(made, Workload)
        assert (made.spec.type, made.spec.image) == (mongodb.runtime, "mongo:6.0" if mongodb.version == "6.0" else None)
        said = ItemResult(id=str(KEY), state="Failed", reason="PullFailed")
        assert corrected.result(KEY, said) == said
        assert corrected.databases[KEY].refused is None
        corrected.prepare(KEY)
        record = agent().records[KEY]
        assert (record.version, record.runtime) == (mongodb.version, mongodb.runtime)
        assert record.password == first.records[KEY].password


@pytest.mark.parametrize(
    ("version", "program"),
    [("6.0", "mongod"), ("6.0.27", "/opt/6/mongod"), ("7.0", "/opt/7/mongod"), ("7.0.28", "/opt/7/mongod")],
)
def test_a_machine_has_a_mongod_for_each_version(version: str, program: str) -> None:
    """By version, else by release, else the one for all; what is named can be read by processes."""
    found = Processes(mongods={"6.0.27": "/opt/6/mongod", "7.0": "/opt/7/mongod"})
    assert found.mongod_of(version) == program
    assert found.programs == ("/opt/6/mongod", "/opt/7/mongod")
