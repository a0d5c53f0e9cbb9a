"""The static configuration that we recommend: entry points named as the fleet's, the file provider, the API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from yaml_rs import loads

from reconciler.desired.render import Renderer, RenderError
from reconciler.errors import Broken
from schemas.fleet import Fleet

API_ENTRY_POINT: Final = "traefik"
"""Traefik itself gives this name a meaning: API, ping and metrics answer there."""
THROTTLE: Final = "10ms"
"""Traefik's 2 s would delay every second commit; a reload takes longer than this anyway."""
_FIRST_TCP_PORT: Final = 10001


def entry_point_names(fleet: Fleet) -> tuple[str, ...]:
    """All names that the fleet's routes may attach to, each once, HTTP first."""
    points = fleet.spec.entry_points
    return tuple(
        dict.fromkeys((points.http, points.https, points.mongodb, *(points.tcp[n] for n in sorted(points.tcp))))
    )


def default_addresses(fleet: Fleet) -> dict[str, str]:
    """Where the entry points listen when nobody says otherwise: 80, 443, 27017, and from 10001 on for the TCP ones."""
    points = fleet.spec.entry_points
    further = sorted(set(points.tcp.values()) - {points.http, points.https, points.mongodb})
    known = {points.mongodb: ":27017", points.https: ":443", points.http: ":80"}
    return {**{name: f":{_FIRST_TCP_PORT + index}" for index, name in enumerate(further)}, **known}


def static_configuration(
    renderer: Renderer,
    fleet: Fleet,
    directory: Path,
    *,
    addresses: Mapping[str, str] | None = None,
    api_address: str = "127.0.0.1:8080",
    throttle: str = THROTTLE,
    access_log: bool = True,
) -> str:
    """Render ``static.yml``.

    ``directory`` is where the front's dynamic file lies; ``addresses`` overrides :func:`default_addresses` by name.

    Raises:
        Broken: when the fleet calls an entry point ``traefik``, which is the API's.
        RenderError: when the template is wrong.
    """
    names = entry_point_names(fleet)
    if API_ENTRY_POINT in names:
        raise Broken(f'the entry point "{API_ENTRY_POINT}" is the API\'s', hint="Rename it in fleet.yaml.")
    all_addresses = {**default_addresses(fleet), **(addresses or {})}
    points = [{"name": name, "address": all_addresses[name]} for name in names]
    web = {fleet.spec.entry_points.http, fleet.spec.entry_points.https}
    variables: dict[str, Any] = {
        "web_entry_points": [point for point in points if point["name"] in web],
        "tcp_entry_points": [point for point in points if point["name"] not in web],
        "api_address": api_address,
        "directory": str(directory.absolute()),
        "throttle": throttle,
        "access_log": access_log,
    }
    text = renderer.text("static.yml.j2", variables)
    _check(text, {**{point["name"]: point["address"] for point in points}, API_ENTRY_POINT: api_address}, directory)
    return text


def _check(text: str, addresses: Mapping[str, str], directory: Path) -> None:
    """Read the text back: the values that came from outside must stand where they belong and say what they said."""
    try:
        said: Any = loads(text)
        found = {name: point["address"] for name, point in said["entryPoints"].items()}
        watched = said["providers"]["file"]["directory"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RenderError(f"{type(error).__name__} in its output", template="static.yml.j2") from None
    if found != dict(addresses) or watched != str(directory.absolute()):
        raise RenderError("its output says something else", template="static.yml.j2")
