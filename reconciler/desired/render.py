"""From Traefik's objects to the text of a dynamic configuration, through the templates.

1. :meth:`Renderer.fragments` renders each object to one line of YAML, reads the line back and compares it with the
   object. Fragments are kept as long as their object does not change.
2. :meth:`Renderer.document` joins the fragments of a front into its file. It renders nothing again, so it costs a few
   milliseconds for ten thousand routes.

Nothing here opens a file: the templates' sources are an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Template, TemplateError
from pydantic_core import from_json

from reconciler.desired.quoting import Quoted, TemplateEnvironment
from reconciler.desired.routing import marker
from reconciler.desired.traefik_model import Section, TraefikObject
from reconciler.errors import Broken

_TEMPLATES: Final[dict[Section, tuple[str, str]]] = {
    "http.routers": ("http-router.yml.j2", "router"),
    "http.services": ("http-service.yml.j2", "service"),
    "http.middlewares": ("http-middleware.yml.j2", "middleware"),
    "http.serversTransports": ("http-servers-transport.yml.j2", "transport"),
    "tcp.routers": ("tcp-router.yml.j2", "router"),
    "tcp.services": ("tcp-service.yml.j2", "service"),
    "tcp.serversTransports": ("tcp-servers-transport.yml.j2", "transport"),
    "tls.certificates": ("tls-certificate.yml.j2", "certificate"),
    "tls.options": ("tls-options.yml.j2", "options"),
    "tls.stores": ("tls-store.yml.j2", "store"),
}
"""Section → template of one of its objects, and the name by which the template knows the object."""
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


@dataclass(frozen=True, slots=True)
class Fragments:
    """Rendered objects: section → name → one indented line of YAML, without its line end."""

    sections: Mapping[Section, Mapping[str, str]]


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
        self._dynamic = self._template("dynamic.yml.j2")

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

    def document(self, fragments: Iterable[Fragments], *, generation: int, revision: str) -> str:
        """Join fragments, in their order, into a complete file that carries the generation's marker.

        Raises:
            RenderError: when two fragments hold an object of the same section and name.
        """
        merged: dict[Section, dict[str, str]] = {}
        count = 0
        for fragment in (self.fragments((marker(generation),)), *fragments):
            for section, texts in fragment.sections.items():
                count += len(texts)
                into = merged.get(section)
                if into is None:
                    merged[section] = dict(texts)
                else:
                    into.update(texts)
        if count != sum(map(len, merged.values())):
            raise RenderError("two objects share section and name", template="dynamic.yml.j2")
        protocols: dict[str, dict[str, Quoted]] = {"http": {}, "tcp": {}, "tls": {}}
        for section, texts in merged.items():
            protocol, _, kind = section.partition(".")
            protocols[protocol][kind] = Quoted("\n".join(texts.values()))
        variables = {**protocols, "generation": generation, "revision": revision}
        return self._whole("dynamic.yml.j2", self._dynamic, variables)

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
        return f"    {line}"


def _rendered(template: Template, variables: Mapping[str, Any]) -> str:
    # Template.render() would copy the variables and the globals first, which takes as long as the rendering
    return "".join(template.root_render_func(template.new_context(variables, shared=True)))  # type: ignore[arg-type]
