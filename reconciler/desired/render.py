"""From Traefik's objects to the text of a dynamic configuration, through the templates.

1. :meth:`Renderer.fragments` renders each object to one line of YAML, reads the line back and compares it with the
   object. Fragments are kept as long as their object does not change.
2. :meth:`Renderer.compose` puts the texts of a composition (:mod:`reconciler.desired.composition`) into a front's
   file. It renders nothing again and copies nothing, so it costs less than a millisecond for ten thousand routes.

Nothing here opens a file: the templates' sources are an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from jinja2 import Template, TemplateError
from pydantic_core import from_json

from reconciler.desired.composition import Fragments, NameTaken, RenderedRoute, Texts, joined
from reconciler.desired.overlay import NO_CLIENT, NO_OVERLAY, NO_ROOTS, Overlay, served_certificates
from reconciler.desired.quoting import Quoted, TemplateEnvironment, quote
from reconciler.desired.routing import marker, tls_entry_point
from reconciler.desired.traefik_model import (
    CLIENT_CHAIN,
    CLIENT_KEY,
    INTERNAL_ROOTS,
    Certificate,
    Section,
    TraefikObject,
)
from reconciler.errors import Broken
from schemas.route import Route

_TEMPLATES: Final[dict[Section, tuple[str, str]]] = {
    "http.routers": ("http-router.yml.j2", "router"),
    "http.services": ("http-service.yml.j2", "service"),
    "http.middlewares": ("http-middleware.yml.j2", "middleware"),
    "http.serversTransports": ("http-servers-transport.yml.j2", "transport"),
    "tcp.routers": ("tcp-router.yml.j2", "router"),
    "tcp.services": ("tcp-service.yml.j2", "service"),
    "tcp.middlewares": ("tcp-middleware.yml.j2", "middleware"),
    "tcp.serversTransports": ("tcp-servers-transport.yml.j2", "transport"),
    "tls.certificates": ("tls-certificate.yml.j2", "certificate"),
    "tls.options": ("tls-options.yml.j2", "options"),
    "tls.stores": ("tls-store.yml.j2", "store"),
}
"""Section → template of one of its objects, and the name by which the template knows the object."""
_WHOLE: Final = "dynamic.yml.j2"
_PLACEHOLDER: Final = "\0"
"""Stands around a section's name where its text will be. No template holds it, and no quoted value."""
_FILLED_SECTIONS: Final = frozenset({"http.serversTransports", "tcp.serversTransports"})
_STAND_INS: Final = {
    f'"{word}"': f"{_PLACEHOLDER}{word}{_PLACEHOLDER}" for word in (INTERNAL_ROOTS, CLIENT_CHAIN, CLIENT_KEY)
}
"""What stands in an object, quoted, for what only an overlay knows → what stands in its text."""
_LIST_SECTION: Final = "tls.certificates"
"""Traefik knows these by their content: a list, in which our name is only for us."""


_FAILURES: Final = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class RenderError(Broken):
    """A template is wrong, or an object has no place in it. ``section`` and ``name`` are empty for the whole file."""

    def __init__(self, message: str, *, template: str, section: str = "", name: str = "") -> None:
        what = f'{section} "{name}"' if section else "the file"
        super().__init__(
            f"{template} cannot render {what}: {message}", hint="The template is at fault, not the repository."
        )
        self.template = template
        self.section = section
        self.name = name


class Renderer:
    """Holds the compiled templates. ``sources`` maps file names such as ``http-router.yml.j2`` to their text.

    Raises:
        RenderError: when a template is missing or does not parse.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._environment = TemplateEnvironment(sources)
        self._objects: dict[Section, tuple[str, str, Template]] = {
            section: (template, variable, self._template(template))
            for section, (template, variable) in _TEMPLATES.items()
        }
        self._dynamic = self._template(_WHOLE)

    def fragments(self, objects: Iterable[TraefikObject]) -> Fragments:
        """Render each object and check that the text says what the object says.

        Raises:
            RenderError: naming the object and the template; also for two objects of one section and name.
        """
        sections: dict[Section, dict[str, str]] = {}
        for section, name, value in objects:
            texts = sections.setdefault(section, {})
            if name in texts:
                template = self._objects[section][0]
                raise RenderError("there are two of this name", template=template, section=section, name=name)
            texts[name] = self._fragment(section, name, value)
        return Fragments(sections)

    def route(self, route: Route, objects: Iterable[TraefikObject]) -> RenderedRoute:
        """Render the ``objects`` that a route was compiled to, as a part of a :class:`Composition`.

        Raises:
            RenderError: as :meth:`fragments`.
        """
        return RenderedRoute(self.fragments(objects), tls_entry_point(route))

    def document(
        self, fragments: Iterable[Fragments], *, generation: int, revision: str, overlay: Overlay = NO_OVERLAY
    ) -> str:
        """Join fragments, in their order, into a complete file that carries the generation's marker.

        Raises:
            RenderError: when two fragments hold an object of the same section and name.
        """
        try:
            texts = joined((self.fragments((marker(generation, revision),)), *fragments))
        except NameTaken:
            raise RenderError("two objects share section and name", template=_WHOLE) from None
        return b"".join(self._framed([overlay.texts, texts], generation, revision, overlay)).decode()

    def overlay(
        self, certificates: Mapping[str, Certificate], *, roots: str = NO_ROOTS, client: Certificate = NO_CLIENT
    ) -> Overlay:
        """Render issued certificates, by name of their object, for :meth:`compose`. ``roots``: PEM.

        ``client``: the pair by which fronts prove themselves to agents that ask for it.

        Raises:
            RenderError: as :meth:`fragments`.
        """
        return Overlay(joined([self.fragments(served_certificates(certificates))]), roots, client=client)

    def compose(
        self, texts: Iterable[Texts], *, generation: int, revision: str, overlay: Overlay = NO_OVERLAY
    ) -> tuple[bytes, ...]:
        """Return a complete file that carries the generation's marker, in pieces to be written one after the other.

        ``texts`` share no section and name: names begin with their team's, and :func:`joined` looks at each team's.
        """
        ours = joined([self.fragments((marker(generation, revision),))])
        return self._framed([ours, overlay.texts, *texts], generation, revision, overlay)

    def _framed(self, texts: Iterable[Texts], generation: int, revision: str, overlay: Overlay) -> tuple[bytes, ...]:
        """Render the template with a placeholder for each section, and put the sections' texts in between."""
        known = {INTERNAL_ROOTS: overlay.roots, CLIENT_CHAIN: overlay.client["certFile"]}
        known[CLIENT_KEY] = overlay.client["keyFile"]
        sections: dict[str, list[bytes]] = {}
        for one in texts:
            for name, lines in one.items():
                sections.setdefault(name, []).append(lines)
        protocols: dict[str, dict[str, Quoted]] = {"http": {}, "tcp": {}, "tls": {}}
        for section in sections:
            protocol, _, kind = section.partition(".")
            protocols[protocol][kind] = Quoted(f"{_PLACEHOLDER}{section}{_PLACEHOLDER}")
        variables = {**protocols, "generation": generation, "revision": revision}
        pieces = self._whole(_WHOLE, self._dynamic, variables).split(_PLACEHOLDER)
        if sorted(pieces[1::2]) != sorted(sections):
            raise RenderError("it leaves a section out, or has one twice", template=_WHOLE)
        found: list[bytes] = []
        for index, piece in enumerate(pieces):
            if index % 2 == 0:
                found.append(piece.encode())
                continue
            for lines in sections[piece]:
                found += (_filled(lines, known) if piece in _FILLED_SECTIONS else lines, b"\n")
            found.pop()  # the template ends the section's last line itself
        return tuple(found)

    def text(self, template: str, variables: Mapping[str, Any]) -> str:
        """Render another template of the package, such as ``static.yml.j2``.

        Raises:
            RenderError: when it is missing or wrong.
        """
        return self._whole(template, self._template(template), variables)

    def _template(self, name: str) -> Template:
        try:
            return self._environment.get_template(name)
        except TemplateError as error:
            raise RenderError(f"{type(error).__name__}: {error}", template=name) from None

    def _whole(self, name: str, template: Template, variables: Mapping[str, Any]) -> str:
        try:
            return _rendered(template, variables).rstrip("\n") + "\n"
        except _FAILURES as error:
            raise RenderError(f"{type(error).__name__}: {error}", template=name) from None

    def _fragment(self, section: Section, name: str, value: object) -> str:
        file, variable, template = self._objects[section]
        try:
            line = _rendered(template, {"name": name, variable: value})
            if section == _LIST_SECTION:
                said, meant = from_json(line.removeprefix("- ")), value
            else:
                said, meant = from_json(f"{{{line}}}"), {name: value}
        except _FAILURES as error:
            # a parser's message quotes what it read, which may be a password's hash or a key
            why = "its output is not JSON" if type(error) is ValueError else f"{type(error).__name__}: {error}"
            raise RenderError(why, template=file, section=section, name=name) from None
        if said != meant:
            raise RenderError("its output says something else", template=file, section=section, name=name)
        if "\n" in line:
            raise RenderError("its output has several lines", template=file, section=section, name=name)
        # such an object holds no string of a team but names and durations, and no quoted string holds the placeholder
        if section in _FILLED_SECTIONS:
            for quoted, stand_in in _STAND_INS.items():
                line = line.replace(quoted, stand_in)
        return f"    {line}"


def _filled(lines: bytes, known: Mapping[str, str]) -> bytes:
    """Put what an overlay knows, by the word that stands for it, into the text of a section."""
    if _PLACEHOLDER.encode() in lines:
        for word, text in known.items():
            lines = lines.replace(_STAND_INS[f'"{word}"'].encode(), quote(text).encode())
    return lines


def _rendered(template: Template, variables: Mapping[str, Any]) -> str:
    # Template.render() would copy the variables and the globals first, which takes as long as the rendering
    environment = template.environment
    context = environment.context_class(environment, variables, template.name, template.blocks)  # type: ignore[arg-type]
    return "".join(template.root_render_func(context))
