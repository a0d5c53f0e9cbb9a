"""What is in service while a revision is being settled: a working copy of a state, changed object by object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.lookup import Lookup
from reconciler.desired.state import Served, State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import OpenSecret, View
from schemas.deployment import Deployment
from schemas.objects import AnyObject, ObjectKey
from schemas.route import Route

CompileRoute = Callable[[ObjectKey, Route, Lookup], TraefikObjects]


class Serving:
    """Objects in service with all that follows from them. The state that it starts from is not changed."""

    def __init__(self, base: State, compile_route: CompileRoute, open_sealed: OpenSecret) -> None:
        self.base = base
        self.served = dict(base.served)
        self.objects: dict[ObjectKey, AnyObject] = dict(base.objects)
        self.claims = base.claims.copy()
        self.selected = dict(base.selected)
        self.compiled = dict(base.compiled)
        self.items = dict(base.items)
        self.referrers = dict(base.referrers)
        self._own_referrers: set[ObjectKey] = set()
        self._compiled_anew: dict[ObjectKey, TraefikObjects | None] = {}
        self._compile_route = compile_route
        self.view = View(self.objects, open_sealed, self.selected, self.claims)
        self._base_view = base.view(open_sealed)
        self.view.before = self._base_view if base.fleet is not None else None

    def enter(self, served: Served, agents: tuple[str, ...]) -> None:
        """Put an object into service. ``agents``: where it runs, for a deployment."""
        key = served.key
        self._drop_items(key)
        self.served[key] = served
        self.objects[key] = served.object
        self.claims.add(served.claims)
        for name in served.references:
            self._referrers(name)[key] = None
        if isinstance(served.object, Deployment) and served.object.spec.agent_selector:
            self.selected[key] = agents

    def withdraw(self, key: ObjectKey) -> None:
        """Take an object out of service, with its claims and references."""
        served = self.served.pop(key, None)
        self.objects.pop(key, None)
        self.selected.pop(key, None)
        self.compiled.pop(key, None)
        self._drop_items(key)
        if served is None:
            return
        self.claims.remove(served.claims)
        for name in served.references:
            self._referrers(name).pop(key, None)

    def _drop_items(self, key: ObjectKey) -> None:
        """Forget what was made of an object; an item of a deployment is also made of the secrets that it names."""
        self.items.pop(key, None)
        if key.kind == "Secret":
            for one in self.referrers.get(key, ()):
                self.items.pop(one, None)

    def _referrers(self, name: ObjectKey) -> dict[ObjectKey, None]:
        """Return the referrers of ``name`` as a dictionary that may be changed here."""
        if name not in self._own_referrers:
            self._own_referrers.add(name)
            self.referrers[name] = dict(self.referrers.get(name, ()))
        found = self.referrers[name]
        assert isinstance(found, dict)
        return found

    def compile(self, key: ObjectKey, route: Route) -> TraefikObjects:
        """Raises CompileProblem."""
        return self._compile_route(key, route, self.view)

    def compiled_before(self, key: ObjectKey) -> TraefikObjects | None:
        """Return what an object was compiled to in the state before: as kept, else (after a restart) anew."""
        kept = self.base.compiled.get(key)
        former = self.base.objects.get(key)
        if kept is not None or not isinstance(former, Route):
            return kept
        if key not in self._compiled_anew:
            try:
                self._compiled_anew[key] = self._compile_route(key, former, self._base_view)
            except CompileProblem:
                self._compiled_anew[key] = None
        return self._compiled_anew[key]

    def retain(self, former: Served) -> bool:
        """Serve the last good version again, as it was compiled then. False where that cannot be done any more."""
        key = former.key
        compiled = self.compiled_before(key)
        if compiled is None and isinstance(former.object, Route):
            self.withdraw(key)
            return False
        served = former if former.retained else replace(former, retained=True)
        if key in self.served:
            self.served[key] = served
        else:
            self.enter(served, self.base.selected.get(key, ()))
        if compiled is not None:
            self.compiled[key] = compiled
        return True
