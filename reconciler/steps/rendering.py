"""From a state to the text of a front's file: routes as they were compiled and are seen, and what lies beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from reconciler.desired.acme_terms import wants_http01
from reconciler.desired.challenge_path import challenge_routes
from reconciler.desired.composition import Composition, RenderedRoute, Texts, joined
from reconciler.desired.doors import Doors, door_objects
from reconciler.desired.observed import Placements, observed
from reconciler.desired.overlay import NO_OVERLAY, Overlay
from reconciler.desired.render import Renderer
from reconciler.desired.routing import catch_all, compile_route
from reconciler.desired.state import State
from reconciler.desired.traefik_model import Certificate, TraefikObjects
from reconciler.desired.view import OpenSecret, View
from reconciler.steps.passing import Published
from reconciler.traefik.publish import Text
from schemas.objects import ObjectKey
from schemas.route import Route


class Rendering:
    """Everything here takes as long as it takes, and is called in a thread.

    ``challenge_url``: where the control plane answers to ACME servers; None where it orders nothing.
    """

    def __init__(
        self,
        renderer: Renderer,
        open_sealed: OpenSecret,
        *,
        default_certificate: Certificate | None = None,
        challenge_url: str | None = None,
        doors: Doors | None = None,
    ) -> None:
        self._renderer = renderer
        self._open_sealed = open_sealed
        self._default_certificate = default_certificate
        self._challenge_url = challenge_url
        self._doors = doors

    def routes(
        self, state: State, base: Composition | None, touched: Iterable[ObjectKey], placements: Placements
    ) -> Composition:
        """Render what is ``touched``, on top of ``base``; everything where there is none."""
        view = state.view(self._open_sealed)
        changes: dict[ObjectKey, RenderedRoute | None] = {}
        for key in touched if base is not None else state.served:
            if key.kind != "Route":
                continue
            served = state.served.get(key)
            changes[key] = None
            if served is not None and isinstance(served.object, Route):
                compiled = compiled_of(state, key, view)
                shown = observed(key, served.object, compiled, view, placements)
                changes[key] = self._renderer.route(served.object, shown)
        return (base if base is not None else Composition()).replaced(changes)

    def text(
        self,
        state: State,
        texts: Iterable[Texts],
        tls_entry_points: Collection[str],
        *,
        generation: int,
        revision: str,
        overlay: Overlay = NO_OVERLAY,
    ) -> Text:
        """Put routes, what belongs to none, and the overlay into one file."""
        fleet = state.fleet
        assert fleet is not None
        common = catch_all(fleet, tls_entry_points=tls_entry_points, default_certificate=self._default_certificate)
        challenges = challenge_routes(fleet, self._challenge_url if wants_http01(state) else None)
        doors = door_objects(fleet, self._doors) if self._doors is not None else ()
        ours = joined([self._renderer.fragments((*common, *challenges, *doors))])
        return self._renderer.compose([ours, *texts], generation=generation, revision=revision, overlay=overlay)

    def whole(self, published: Published) -> Text:
        """Return what the fronts' files hold. What a restart has not rendered again yet is rendered now."""
        rendered = published.rendered
        if rendered is None:
            rendered = self.routes(published.state, None, (), published.placements)
        return self.text(
            published.state,
            rendered.texts,
            rendered.tls_entry_points,
            generation=published.generation,
            revision=published.revision,
            overlay=published.overlay,
        )


def compiled_of(state: State, key: ObjectKey, view: View) -> TraefikObjects:
    """Return what a route became. After a restart that is worked out again."""
    if key in state.compiled:
        return state.compiled[key]
    found = state.served[key].object
    assert isinstance(found, Route)
    return compile_route(key, found, view)
