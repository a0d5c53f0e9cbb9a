"""What is seen of backends is put into the routes that lead there, and nothing else is rendered again."""

from __future__ import annotations

from typing import Final

from reconciler.desired.observed import AS_DECLARED, AgentPlacements, Placement, affected
from reconciler.desired.render import Renderer
from reconciler.steps.passing import Published
from reconciler.steps.rendering import Rendering
from reconciler.traefik.templates import load_templates
from schemas.objects import ObjectKey
from tests.support import documents

FILES: Final[dict[str, bytes | None]] = {
    "fleet.yaml": documents.fleet(),
    "agents/vps-1.yaml": documents.agent("vps-1"),
    "agents/vps-2.yaml": documents.agent("vps-2", address="192.0.2.2"),
    "routes/shop/one.yaml": documents.route("one", backends=[{"agent": "vps-1", "port": 8081}]),
    "routes/shop/two.yaml": documents.route("two", backends=[{"agent": "vps-2", "port": 8081}]),
}
MOVED: Final = {"vps-1": AgentPlacements({8081: Placement(20001)})}
RENDERING: Final = Rendering(Renderer(load_templates()), lambda _: "")


def text(published: Published) -> str:
    return b"".join(RENDERING.whole(published)).decode()


def test_only_routes_to_what_changed_are_rendered_again() -> None:
    """The others are the very fragments of before, and the file is what rendering everything gives."""
    state = documents.state_of(FILES)
    base = RENDERING.routes(state, None, (), AS_DECLARED)
    moved = RENDERING.routes(state, base, affected(state, AS_DECLARED, MOVED), MOVED)
    one, two = ObjectKey("Route", "shop", "one"), ObjectKey("Route", "shop", "two")
    assert moved.get(two) is base.get(two)
    assert moved.get(one) != base.get(one)
    published = Published(3, "a" * 40, state, moved, placements=MOVED)
    assert "http://127.0.0.1:20001" in text(published)
    assert "http://127.0.0.1:8081" not in text(published)
    assert text(published) == text(Published(3, "a" * 40, state, None, placements=MOVED))
    back = RENDERING.routes(state, moved, affected(state, MOVED, AS_DECLARED), AS_DECLARED)
    assert back.texts == base.texts
