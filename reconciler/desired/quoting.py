r"""The one way a value gets into a rendered file: as a quoted scalar that only ever means itself.

What :func:`quote` returns is at once JSON (RFC 8259), a YAML 1.2 flow scalar or collection, and inert in the Go
template that Traefik's file provider makes of every file before it parses it:

- ``{`` and ``}`` are written ``\u007b`` and ``\u007d``, so no ``{{ action }}`` can come from a value;
- control characters, line separators, the byte order mark and what else YAML calls non-printable are escaped, so a
  value is always one line;
- characters outside the basic plane stay as they are, because YAML reads JSON's surrogate pairs as two characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring  # escapes quotes, backslashes and C0 controls, leaves the rest as it is
from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined, Undefined
from jinja2.exceptions import SecurityError
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ESCAPED: Final = re.compile("[{}\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Quoted(str):
    """Text that may stand in a rendered file as it is. Only :func:`quote` and the renderer make it."""

    __slots__ = ()


class NotQuotable(ValueError):
    """The value has no safe form: half a surrogate pair, or a type that Traefik's configuration does not know."""


def quote(value: object) -> Quoted:
    """Write a string, integer, boolean, list or dict (string keys) as one line of JSON.

    Raises:
        NotQuotable: for anything else.
    """
    return Quoted(_string(value) if type(value) is str else _quoted(value))


def _quoted(value: object) -> str:
    kind = type(value)
    if kind is str:
        return _string(value)  # type: ignore[arg-type]
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is list or kind is tuple:
        return "[" + ", ".join([_quoted(item) for item in value]) + "]"  # type: ignore[attr-defined]
    if kind is dict:
        return "{" + ", ".join([f"{_key(key)}: {_quoted(item)}" for key, item in value.items()]) + "}"  # type: ignore[attr-defined]
    raise NotQuotable(f"a {kind.__name__} cannot be written into Traefik's configuration")


@lru_cache(maxsize=1024)
def _key(key: object) -> str:
    """Few keys are written again and again: Traefik's own, and the names of common headers."""
    if type(key) is not str:
        raise NotQuotable("keys are strings")
    return _string(key)


def _string(value: str) -> str:
    text = encode_basestring(value)
    if text.isascii() and "{" not in text and "}" not in text and "\x7f" not in text:
        return text
    if _SURROGATE.search(text):
        raise NotQuotable("the text is not valid Unicode: it holds half a surrogate pair")
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _only_quoted(value: object) -> object:
    """Jinja calls this with the value of every ``{{ expression }}`` just before it is written."""
    if type(value) is Quoted:
        return value
    if isinstance(value, Undefined):
        return str(value)  # StrictUndefined raises and names the variable
    raise SecurityError("a template writes a value without the quote filter")


class _Variables(Context):
    """What a template may name: the variables of one rendering. jinja's own takes longer to make than to render with.

    The part that costs is the evaluation context. It only changes in templates that switch HTML escaping on or off,
    and nothing here escapes HTML; so all share their environment's.
    """

    def __init__(
        self,
        environment: Environment,
        parent: dict[str, Any],
        name: str | None,
        blocks: Mapping[str, Callable[[Context], Any]],
        globals: object = None,  # noqa: A002, ARG002 - Jinja's signature; there are none
    ) -> None:
        assert isinstance(environment, TemplateEnvironment)
        self.parent = parent
        self.vars = {}
        self.environment = environment
        self.eval_ctx = environment.eval_ctx
        self.exported_vars = set()
        self.name = name
        self.globals_keys = set()
        self.blocks = {block: [function] for block, function in blocks.items()}


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja for configuration files: values are plain data, and what is written was quoted.

    ``{{ a.b }}`` is the key ``b`` of the dict ``a`` and nothing else: no attribute or method of any object can be
    reached. That is stricter than the sandbox, which stays as the second line, and three times as fast.
    """

    context_class = _Variables

    def __init__(self, sources: Mapping[str, str]) -> None:
        super().__init__(
            loader=DictLoader(dict(sources)),
            undefined=StrictUndefined,
            finalize=_only_quoted,
            # HTML escaping would change values: these files are YAML, and `quote` is YAML's escaping.
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
        )
        self.filters = {"quote": quote}
        self.globals = {}
        self.tests = {}
        self.eval_ctx = EvalContext(self)

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 - Jinja's signature
        if type(obj) is not dict:
            raise SecurityError(f"templates read keys of dicts; this is a {type(obj).__name__}")
        if attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401 - Jinja's signature
        return self.getattr(obj, argument)
