"""The routers of the doors, beside those of routes and catch-alls."""

from __future__ import annotations

import pytest

from reconciler.desired.doors import DOORS, Doors, door_objects
from reconciler.desired.matching import CATCH_ALL_PRIORITY, FLOOR
from reconciler.desired.render import Renderer
from reconciler.desired.routing import catch_all
from reconciler.desired.traefik_model import RESERVED, Router, TraefikObject
from reconciler.traefik.templates import load_templates
from tests.support.traefik import fleet

ADDRESSES = Doors({door: f"127.0.0.1:{9000 + number}" for number, door in enumerate(DOORS)})


def routers(objects: tuple[TraefikObject, ...]) -> dict[str, Router]:
    return {name: value for section, name, value in objects if section == "tcp.routers"}  # type: ignore[misc]


def test_routes_come_first_and_closing_comes_last() -> None:
    """No priority of a door reaches that of a route, and each is above that of the catch-alls."""
    found = routers(door_objects(fleet(), ADDRESSES))
    assert all(CATCH_ALL_PRIORITY < one["priority"] < FLOOR for one in found.values())
    assert found[f"{RESERVED}door-unknown"]["priority"] > found[f"{RESERVED}door-unnamed"]["priority"]
    assert {one["priority"] for one in routers(catch_all(fleet())).values()} == {CATCH_ALL_PRIORITY}


@pytest.mark.parametrize("point", ["mongodb", "databases"])
def test_they_are_at_the_entry_point_for_databases_alone(point: str) -> None:
    """Other TCP entry points stay closed to unknown names."""
    one = fleet(entryPoints={"mongodb": point, "tcp": {"events": "events"}})
    assert {tuple(router["entryPoints"]) for router in routers(door_objects(one, ADDRESSES)).values()} == {(point,)}


def test_each_leads_to_its_own_listener() -> None:
    """TLS ends at Traefik for all but the one for plain TCP, and every object renders."""
    objects = door_objects(fleet(), ADDRESSES)
    Renderer(load_templates()).fragments(objects)
    services = {name: value for section, name, value in objects if section == "tcp.services"}
    for door in DOORS:
        router = routers(objects)[f"{RESERVED}door-{door}"]
        assert ("tls" in router) is (door != "plain")
        servers = [{"address": ADDRESSES.addresses[door]}]
        assert services[router["service"]] == {"loadBalancer": {"servers": servers}}
