"""Objects become text that says exactly what they say, or an error that names object and template."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yaml_rs import loads

from reconciler.desired.composition import joined
from reconciler.desired.quoting import NotQuotable, quote
from reconciler.desired.render import Renderer, RenderError
from reconciler.desired.routing import catch_all, compile_route
from reconciler.desired.traefik_model import INTERNAL_ROOTS, Certificate, TraefikObject
from reconciler.desired.transports import http_transport, tcp_transport
from reconciler.traefik.templates import load_templates
from schemas.route import Transport
from tests.support.traefik import fleet, key, lookup, route

SOURCES = load_templates()
SERVICE = TraefikObject("http.services", "shop_web", {"loadBalancer": {"servers": [{"url": "http://10.0.0.1:80"}]}})
MIDDLEWARE = TraefikObject("http.middlewares", "shop_web_x-1", {"compress": {}})


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(SOURCES)


def broken(template: str, source: str) -> Renderer:
    return Renderer({**SOURCES, template: source})


def test_an_object_is_one_line(renderer: Renderer) -> None:
    """A fragment is the indented name and the value as JSON."""
    line = '    "shop_web": {"loadBalancer": {"servers": [{"url": "http://10.0.0.1:80"}]}}'
    assert renderer.fragments([SERVICE]).sections == {"http.services": {"shop_web": line}}


def test_a_document_says_what_its_objects_say(renderer: Renderer) -> None:
    """Read as YAML, every object of every section is there with its value, and the marker of the generation."""
    route_objects = compile_route(
        key(),
        route(
            hostnames=["*.a.test", "b.test"],
            backends=[{"agent": "vps-1", "port": 80}],
            middlewares=[{"headers": {"request": {"X": '{{ env "HOME" }}'}}}, {"compress": {}}],
            transport={"scheme": "h2c", "serverName": "x.test"},
        ),
        lookup(),
    )
    ours = catch_all(fleet(), default_certificate={"certFile": "-----\nA\n", "keyFile": "k"})
    certificate = TraefikObject("tls.certificates", "apps", {"certFile": "a", "keyFile": "b"})
    text = renderer.document(
        [renderer.fragments(ours), renderer.fragments(route_objects), renderer.fragments([certificate])],
        generation=42,
        revision="abc",
    )
    said: Any = loads(text)
    meant: dict[str, Any] = {"http": {}, "tcp": {}, "tls": {"certificates": [certificate.value]}}
    for section, name, value in (*ours, *route_objects):
        protocol, _, kind = section.partition(".")
        meant[protocol].setdefault(kind, {})[name] = value
    meant["http"]["services"]["cloudlunacy__generation-42-abc"] = {"loadBalancer": {"servers": []}}
    assert said == meant
    assert text.splitlines()[1] == '# generation 42, revision "abc"'
    assert "{{" not in text


def test_empty_sections_are_left_out(renderer: Renderer) -> None:
    """A document without objects holds the marker alone: an empty map would stop Traefik's file provider."""
    assert loads(renderer.document([], generation=1, revision="abc")) == {
        "http": {"services": {"cloudlunacy__generation-1-abc": {"loadBalancer": {"servers": []}}}}
    }


def test_an_overlay_brings_certificates_and_roots(renderer: Renderer) -> None:
    """Roots stand where a transport asks for them and nowhere else, whatever a team's strings say."""
    transport = http_transport("shop_web", Transport(), "vps-1.agents.cloudlunacy.test")
    same = TraefikObject("http.middlewares", "x_y", {"headers": {"customRequestHeaders": {"A": INTERNAL_ROOTS}}})
    fragments = renderer.fragments([transport, same])
    pair: Certificate = {"certFile": "-----\nC\n", "keyFile": "-----\nK\n"}
    overlay = renderer.overlay({"shop": pair, "apps": pair}, roots="-----\nR{{ 1 }}\n")
    pieces = renderer.compose([joined([fragments])], generation=1, revision="abc", overlay=overlay)

    said: Any = loads(b"".join(pieces).decode())
    assert said == loads(renderer.document([fragments], generation=1, revision="abc", overlay=overlay))
    assert said["http"]["serversTransports"]["shop_web"]["rootCAs"] == ["-----\nR{{ 1 }}\n"]
    assert said["http"]["middlewares"]["x_y"] == same.value
    assert said["tls"]["certificates"] == [pair, pair]
    assert "K" not in repr(overlay)


def test_without_an_overlay_nobody_is_trusted(renderer: Renderer) -> None:
    """A file that is made without the authority refuses the connections that it should check."""
    transport = tcp_transport("shop_db", Transport(), "vps-1.agents.cloudlunacy.test")
    said: Any = loads(renderer.document([renderer.fragments([transport])], generation=1, revision="abc"))
    assert said["tcp"]["serversTransports"]["shop_db"]["tls"]["rootCAs"] == ["no roots"]


def test_the_same_name_twice_is_an_error(renderer: Renderer) -> None:
    """Within one set of objects, and across fragments of a document."""
    with pytest.raises(RenderError, match="two of this name"):
        renderer.fragments([SERVICE, SERVICE])
    fragment = renderer.fragments([SERVICE])
    with pytest.raises(RenderError, match="share section and name"):
        renderer.document([fragment, fragment], generation=1, revision="abc")


def test_names_may_repeat_across_sections(renderer: Renderer) -> None:
    """A router and a service of one name are two objects."""
    same = TraefikObject("http.middlewares", "shop_web", {"compress": {}})
    assert "shop_web" in renderer.document([renderer.fragments([SERVICE, same])], generation=1, revision="a")


@pytest.mark.parametrize(
    "source",
    [
        '{{ name | quote }}: {"loadBalancer": {"servers": []}}',
        '{{ name | quote }}: {"loadBalancer": {{ service.loadBalancer | quote }}, "more": 1}',
        '"other": {{ service | quote }}',
        "{{ name | quote }}: {{ service | quote }}}",
        "{{ name | quote }}:\n{{ service | quote }}",
        "{{ name }}: {{ service | quote }}",
        "{{ name | quote }}: {{ service.nope | quote }}",
        "{{ name | quote }}: {{ nope }}",
        "{{ name | quote }}: {{ service.loadBalancer.keys() | quote }}",
        "{{ name | quote }}: {{ service.__class__ | quote }}",
        "{{ name | quote }}: {{ ''.__class__.__mro__ | quote }}",
        "{{ name | quote }}: {{ service | tojson }}",
        "{{ name | quote }}: {{ 1 / 0 }}",
        "",
    ],
)
def test_a_template_that_says_something_else_is_an_error(source: str) -> None:
    """Left out, added, misnamed, unquoted, unbalanced, undefined: the object and the template are named."""
    with pytest.raises(RenderError) as caught:
        broken("http-service.yml.j2", source).fragments([SERVICE])
    assert caught.value.template == "http-service.yml.j2"


def test_errors_name_the_object() -> None:
    """A template that fails for one object says for which."""
    with pytest.raises(RenderError) as caught:
        broken("http-service.yml.j2", "{{ name }}").fragments([SERVICE])
    assert (caught.value.section, caught.value.name) == ("http.services", "shop_web")
    assert str(caught.value).startswith('http-service.yml.j2 cannot render http.services "shop_web": ')


def test_a_middleware_without_place_in_the_template_is_an_error(renderer: Renderer) -> None:
    """An option that the template forgets cannot get lost silently."""
    with pytest.raises(RenderError, match="says something else"):
        renderer.fragments([TraefikObject("http.middlewares", "x_y", {"inFlightReq": {"amount": 1}})])


def test_templates_that_are_missing_or_do_not_parse_are_errors() -> None:
    """The renderer says so when it is made."""
    with pytest.raises(RenderError, match=r"dynamic\.yml\.j2"):
        Renderer({name: text for name, text in SOURCES.items() if name != "dynamic.yml.j2"})
    with pytest.raises(RenderError, match="http-router"):
        broken("http-router.yml.j2", "{% if %}")


def test_errors_show_no_values() -> None:
    """What a parser quotes of its input could be a secret, so it is not passed on."""
    users = TraefikObject("http.middlewares", "x_y", {"basicAuth": {"users": ["ann:hunter2"]}})
    with pytest.raises(RenderError) as caught:
        broken("http-middleware.yml.j2", "{{ name | quote }}: {{ middleware | quote }} {{ 1 | quote }}").fragments(
            [users]
        )
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [1.5, None, object(), {1: 2}, ["a", None], {"a": {"b": 2.0}}, "\ud800", b"x"])
def test_values_without_a_safe_form_are_refused(value: object) -> None:
    """Only strings, integers, booleans, lists and dicts of them are written."""
    with pytest.raises(NotQuotable):
        quote(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{{ env }}", '"\\u007b\\u007b env \\u007d\\u007d"'),
        ("a\u2028b\u0085c\x7f\ufeff", '"a\\u2028b\\u0085c\\u007f\\ufeff"'),
        ('"\\\n', '"\\"\\\\\\n"'),
        ("😀 é", '"😀 é"'),
        (True, "true"),
        (7, "7"),
        ([], "[]"),
        ({"{": {}}, '{"\\u007b": {}}'),
    ],
)
def test_quoting(value: object, text: str) -> None:
    """Braces, separators and controls are escaped, other characters are not."""
    assert quote(value) == text
    assert json.loads(text) == value
