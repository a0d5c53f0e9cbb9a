"""The recommended static configuration is named after the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from yaml_rs import loads

from reconciler.desired.render import Renderer, RenderError
from reconciler.errors import Broken
from reconciler.traefik.static import default_addresses, entry_point_names, static_configuration
from reconciler.traefik.templates import load_templates
from tests.support.traefik import fleet

SOURCES = load_templates()


def rendered(directory: str = "/etc/traefik/dynamic", *, points: Any = None, **more: Any) -> Any:
    example = fleet(entryPoints=points or {})
    return loads(static_configuration(Renderer(SOURCES), example, Path(directory), **more))


def test_entry_points_and_their_default_addresses() -> None:
    """80, 443 and 27017; TCP entry points from 10001 on in order of name; the API on loopback."""
    said = rendered(points={"tcp": {"mail": "smtps", "amqp": "amqps"}})
    assert {name: point["address"] for name, point in said["entryPoints"].items()} == {
        "web": ":80",
        "websecure": ":443",
        "mongodb": ":27017",
        "amqps": ":10001",
        "smtps": ":10002",
        "traefik": "127.0.0.1:8080",
    }


def test_only_the_web_entry_points_are_defaults() -> None:
    """So a router without entry points never attaches to a database's."""
    said = rendered(points={"tcp": {"mail": "smtps"}})
    assert {name for name, point in said["entryPoints"].items() if point.get("asDefault")} == {"web", "websecure"}


def test_no_telemetry_and_no_trust_in_forwarded_headers() -> None:
    """Traefik asks nobody about itself and believes no client about others."""
    said = rendered()
    assert said["global"] == {"checkNewVersion": False, "sendAnonymousUsage": False}
    assert said["entryPoints"]["web"]["forwardedHeaders"] == {"insecure": False}


def test_the_directory_stays_one_string() -> None:
    """Quotes, braces and spaces in a path are part of it."""
    odd = '/srv/{{ env "X" }}/a "b": c'
    assert rendered(odd)["providers"]["file"] == {"directory": odd, "watch": True}


def test_addresses_can_be_given() -> None:
    """By Traefik's name of the entry point; the others keep their default."""
    said = rendered(addresses={"web": "127.0.0.1:8000"}, api_address="127.0.0.1:9", access_log=False)
    assert (said["entryPoints"]["web"]["address"], said["entryPoints"]["websecure"]["address"]) == (
        "127.0.0.1:8000",
        ":443",
    )
    assert "accessLog" not in said


def test_entry_points_that_share_a_name_are_listed_once() -> None:
    """A fleet may let TCP routes use the mongodb entry point."""
    example = fleet(entryPoints={"tcp": {"db": "mongodb", "web2": "websecure"}})
    assert entry_point_names(example) == ("web", "websecure", "mongodb")
    assert default_addresses(example) == {"web": ":80", "websecure": ":443", "mongodb": ":27017"}


def test_the_apis_name_cannot_be_an_entry_point_of_the_fleet() -> None:
    """Traffic would reach the API."""
    with pytest.raises(Broken, match="traefik"):
        rendered(points={"http": "traefik"})


@pytest.mark.parametrize(
    "change", [("{{ point.address | quote }}", '":1"'), ("entryPoints:", "entrypoints:"), ("  file:", "")]
)
def test_a_template_that_says_something_else_is_an_error(change: tuple[str, str]) -> None:
    """What it says is read back and compared."""
    sources = {**SOURCES, "static.yml.j2": SOURCES["static.yml.j2"].replace(*change)}
    with pytest.raises(RenderError, match=r"static\.yml\.j2"):
        static_configuration(Renderer(sources), fleet(), Path("/x"))
