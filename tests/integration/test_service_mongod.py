"""The real mongod with the files that an agent keeps for it."""

from __future__ import annotations

import hashlib
import socket
import ssl
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from agent.grants import FILE
from tests.support.mongod import PASSWORD, USER, Mongod
from tests.support.ports import free_port
from tests.support.service_world import ID, NAMES, World, files, item, leaf, make_issuer, pair_in

SECONDS = 500.0
ROTATE = """
import sys
from pymongo import MongoClient
port, roots, host = int(sys.argv[1]), sys.argv[2], sys.argv[3]
options = {"directConnection": True, "tls": True, "tlsCAFile": roots, "tlsAllowInvalidHostnames": True}
with MongoClient("127.0.0.1", port, username="root", password="root", **options) as client:
    client.admin.command("rotateCertificates")
"""


def shown(port: int, roots: Path) -> str:
    """The SHA-256 of the leaf that mongod shows to who checks roots and name."""
    context = ssl.create_default_context(cafile=str(roots))
    with (
        socket.create_connection(("127.0.0.1", port), 10) as raw,
        context.wrap_socket(raw, server_hostname=NAMES[0]) as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return hashlib.sha256(found).hexdigest()


def test_mongod_serves_what_the_agent_keeps_and_takes_the_next(tmp_path: Path) -> None:
    """It reads the files as they lie; told by a granted command, it shows the next leaf without a restart."""
    issuer = make_issuer(tmp_path / "keys", time.time())
    issuer._lifetime = lambda _: SECONDS
    world = World(tmp_path / "data", issuer)
    world.data.mkdir(mode=0o700)
    world.now = time.time()
    wanted = item(reload={"command": "rotate"})
    server = Mongod(tmp_path / "mongod", files(world) / "tls.pem", files(world) / "ca.crt", free_port())
    server.folder.mkdir()
    script = tmp_path / "rotate.py"
    script.write_text(ROTATE)
    command = [sys.executable, str(script), str(server.port), str(server.roots), NAMES[0]]
    (world.data / FILE).write_text(f"[services.commands]\nrotate = {command}\n")
    first = world.issue(wanted)
    assert (first.state, first.reason) == ("Failed", "NotTold"), "nobody runs yet"
    try:
        server.start()
        server.create_user()
        world.step(10)
        assert world.apply(wanted)[ID].reason == "Issued"
        before = leaf(files(world))
        assert shown(server.port, server.roots) == before.fingerprint(hashes.SHA256()).hex()
        with server.direct(username=USER, password=PASSWORD, authSource="shop") as client:
            client.shop.orders.insert_one({"n": 1})
            world.step(SECONDS / 2)
            world.answer(wanted)
            assert pair_in(files(world))
            assert world.apply(wanted)[ID].reason == "Issued"
            after = leaf(files(world))
            assert after.serial_number != before.serial_number
            assert shown(server.port, server.roots) == after.fingerprint(hashes.SHA256()).hex()
            assert client.shop.orders.count_documents({}) == 1
    finally:
        server.stop()
