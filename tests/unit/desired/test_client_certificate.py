"""How a front's file says by which pair it proves itself to agents."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from reconciler.desired.overlay import NO_CLIENT
from reconciler.desired.render import Renderer
from reconciler.traefik.templates import load_templates
from schemas.objects import ObjectKey
from schemas.route import Transport
from tests.support.documents import agent, fleet, route, state_of

PROVING = {"scheme": "https", "clientCertificate": True}
PAIR = {"certFile": "-----\nC{{ 1 }}\n", "keyFile": '-----\nK"\n'}


def file_of(transport: dict[str, Any], **overlay: Any) -> Any:
    """The front's file for an HTTP and a MongoDB route with this transport, read back."""
    backends = [{"agent": "vps-1", "port": 8081}]
    files = {
        "fleet.yaml": fleet(),
        "agents/vps-1.yaml": agent("vps-1"),
        "routes/shop/web.yaml": route("web", transport=transport),
        "routes/shop/db.yaml": route("db", type="mongodb", tls={}, transport=transport, backends=backends),
    }
    state = state_of(files)
    renderer = Renderer(load_templates())
    keys = [ObjectKey("Route", "shop", "db"), ObjectKey("Route", "shop", "web")]
    fragments = [renderer.fragments(state.compiled[key]) for key in keys]
    text = renderer.document(fragments, generation=1, revision="a" * 40, overlay=renderer.overlay({}, **overlay))
    return YAML(typ="safe", pure=True).load(text)


def test_the_pair_comes_with_the_file() -> None:
    """In both kinds of transport, where the route asks for it, beside the name and the roots."""
    found = file_of(PROVING, roots="R", client=PAIR)
    tcp = found["tcp"]["serversTransports"]["shop_db"]["tls"]
    assert found["http"]["serversTransports"]["shop_web"]["certificates"] == [PAIR]
    assert tcp == {"serverName": "vps-1.agents.cloudlunacy.test", "rootCAs": ["R"], "certificates": [PAIR]}


def test_who_does_not_ask_for_it_does_not_get_it() -> None:
    """A key stands in no more places than it must."""
    assert "K" not in str(file_of({"scheme": "https"}, roots="R", client=PAIR)["http"]["serversTransports"])


def test_without_a_pair_there_is_nothing_that_traefik_could_use() -> None:
    """So the connection is not made instead of being made without proof."""
    found = file_of(PROVING, roots="R")
    assert found["http"]["serversTransports"]["shop_web"]["certificates"] == [NO_CLIENT]


def test_no_repr_shows_the_key() -> None:
    """An overlay may be logged."""
    assert "K" not in repr(Renderer(load_templates()).overlay({}, client=PAIR))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "transport", [{"clientCertificate": True}, {**PROVING, "scheme": "h2c"}, {**PROVING, "serverName": "a.example.com"}]
)
def test_only_agents_of_the_fleet_are_shown_it(transport: dict[str, Any]) -> None:
    """It says who the fleet is, so it is for nobody else."""
    with pytest.raises(ValidationError, match="clientCertificate is for scheme https without serverName"):
        Transport.model_validate(transport)
