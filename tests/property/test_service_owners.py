"""Whose files lie where on an agent, whatever documents teams bring about, in whatever order, with whatever faults."""

from __future__ import annotations

import grp
import itertools
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.session import Item, ItemResult
from tests.support.service_world import DAY, World, grant, item, make_issuer, pair_in

GROUPS: Final = {"aaa": "games", "shop": "daemon"}
"""Of each team; nobody else may ever read its keys."""
SERVICES: Final = ("aaa/evil", "aaa/zoo", "shop/api", "shop/orders")
WHERE: Final = (
    "",
    "etc/x",
    "etc/x",
    "etc/x/sub",
    "etc/x.1/sub",
    "etc/x.2/tls.key",
    "etc/X",
    "alias/x",
    "etc/y",
    "data/services/shop/orders",
    "data/services/shop",
)
FOLDER: Final = tempfile.TemporaryDirectory()
ISSUER: Final = make_issuer(Path(FOLDER.name) / "keys")

Script = list[tuple[str, Any]]
documents = st.lists(
    st.tuples(st.sampled_from(SERVICES), st.sampled_from(WHERE), st.booleans()),
    unique_by=lambda one: one[0],
    max_size=len(SERVICES),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("document"), documents),
        st.tuples(st.just("document"), documents),
        st.tuples(st.just("issue"), st.sampled_from([2.0, 30.0, 700.0, DAY / 2])),
        st.tuples(st.sampled_from(["issue", "restart", "withdraw", "grant"]), st.just(2.0)),
    ),
    max_size=25,
)


class Machine:
    """``folder`` holds the agent's data, what it is granted, and a second name of that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("data", "etc"):
            (folder / name).mkdir(mode=0o700)
        (folder / "alias").symlink_to(folder / "etc")
        self.world = World(folder / "data", ISSUER)
        self.wanted: dict[str, Item] = {}
        self.results: dict[str, ItemResult] = {}
        self.askers: dict[bytes, str] = {}
        """Public key → service that asked with it."""
        self.allow()

    def allow(self) -> None:
        self.allowed = True
        places = [str(self.folder), f"{self.folder}/alias"]
        grant(self.world, f"directories = {json.dumps(places)}\ngroups = {json.dumps([*GROUPS.values()])}")

    def play(self, step: str, value: Any) -> None:
        match step:
            case "document":
                before, keys = dict(self.wanted), self.keys_in_place()
                self.wanted = {one.id: one for one in (self._item(*said) for said in value)}
                self._apply()
                for service, key in keys.items():
                    one = f"Certificate/{service}"
                    if self.allowed and one in self.wanted and self.wanted[one] == before[one]:
                        assert self.keys_in_place().get(service) == key, f"{service} did not change"
            case "issue":
                self.issue(value)
            case "restart":
                self.world.asked.clear()
                self.world.restart()
                self._apply()
            case "withdraw":
                self.allowed = False
                grant(self.world, "")
            case "grant":
                self.allow()

    def issue(self, seconds: float) -> None:
        """Let time pass and answer all that is asked."""
        world = self.world
        world.asked.clear()
        world.connect()
        world.step(seconds)
        while world.asked:
            ask = world.asked[0]
            if ask.id not in self.wanted or self.wanted[ask.id].digest != ask.digest:
                world.asked.pop(0)
                continue
            request = x509.load_pem_x509_csr(ask.csr.encode())
            public = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.askers[public] = ask.id.removeprefix("Certificate/")
            world.answer(self.wanted[ask.id])
        self._apply()

    def keys_in_place(self) -> dict[str, bytes]:
        """Return the keys of services that are applied, read through what they were told is their directory."""
        found = {}
        for service in SERVICES:
            one = f"Certificate/{service}"
            held = self.world.service.held(*service.split("/"))
            if held is not None and one in self.results and self.results[one].state == "Applied":
                found[service] = (held.place.link / "tls.key").read_bytes()
        return found

    def check(self) -> None:
        """Each key lies only where its owner's name stands, for its owner's group; no two have one directory."""
        for path in [*self.folder.rglob("tls.key"), *self.folder.rglob("tls.pem")]:
            private = load_pem_private_key(path.read_bytes(), None)
            asker = self.askers[private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
            team = asker.partition("/")[0]
            owner = json.loads((path.parent / "received.json").read_text())["owner"]
            assert owner.partition("/")[0] == team
            status = path.stat()
            assert not status.st_mode & 0o027
            if status.st_mode & stat.S_IRGRP:
                assert grp.getgrgid(status.st_gid).gr_name == GROUPS[team]
            assert {one.name for one in path.parent.iterdir()} == {
                "ca.crt",
                "received.json",
                "tls.crt",
                "tls.key",
                "tls.pem",
            }
        held = [self.world.service.held(*service.split("/")) for service in SERVICES]
        there = [one.place.link.resolve(strict=True) for one in held if one is not None]
        assert all(pair_in(one) for one in there)
        for one, other in itertools.combinations(there, 2):
            assert not one.is_relative_to(other)
            assert not other.is_relative_to(one)

    def _apply(self) -> None:
        self.results = self.world.apply(*self.wanted.values())

    def _item(self, service: str, where: str, group: bool) -> Item:
        spec: dict[str, Any] = {"dnsNames": [f"{service.replace('/', '-')}.app.cloudlunacy.test"]}
        if where:
            spec["directory"] = str(self.folder / where)
            if group and os.geteuid() == 0:
                spec["group"] = GROUPS[service.partition("/")[0]]
        return item(f"Certificate/{service}", **spec)


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_lies_in_a_directory_belongs_to_one_service_and_its_key_to_its_team(script: Script) -> None:
    """Whoever did not change keeps its files; in the end all get what they want, and nothing stays of who is gone."""
    with tempfile.TemporaryDirectory() as folder:
        one = Machine(Path(folder).resolve())
        beginning: Script = [("document", [("shop/orders", "etc/x", True)]), ("issue", 2.0)]
        for step, value in (*beginning, *script):
            one.play(step, value)
            one.check()
        one.allow()
        one.play("document", [])
        assert [path.name for path in one.folder.rglob("*") if "tls." in path.name or path.is_symlink()] == ["alias"]
        one.play("document", [("aaa/evil", "etc/x", True), ("shop/api", "", False), ("shop/orders", "etc/y", True)])
        one.issue(2.0)
        one.check()
        assert {result.state for result in one.results.values()} == {"Applied"}
