"""What people are told of the grammar of ``schemas``: for each pattern a sentence and something that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args

from pydantic import BaseModel, StringConstraints
from pydantic_core import ErrorDetails

from schemas import names
from schemas.access_api import Lifetime, Reason
from schemas.api import Checksum
from schemas.deployment import Argument, EnvValue, Image, MongoDB, MongoDBUser, MountPath, Registry, User
from schemas.enrolment import Version
from schemas.fleet import PeopleGroup
from schemas.images import ImagePattern
from schemas.middleware import BasicAuth, ContentType
from schemas.notifications import TimeOfDay, TimeZone, TypeName
from schemas.route import StickyCookie
from schemas.secret import SealedValue, SecretKey
from schemas.service_tls import GroupName


class Form(NamedTuple):
    """``sentence`` ends one that starts with the value; ``example`` fits; ``pattern``: where it is known."""

    sentence: str
    example: str
    pattern: str = ""

    @property
    def is_free(self) -> bool:
        """Whether nearly any text fits."""
        return self.sentence == _NO_NUL.sentence


def pattern_of(text_type: Any) -> str:  # noqa: ANN401 - an Annotated[str, …]
    """Return the pattern of a type such as :data:`schemas.names.Duration`."""
    constraints = next(one for one in get_args(text_type) if isinstance(one, StringConstraints))
    return str(constraints.pattern)


def _field(model: type[BaseModel], name: str) -> str:
    """Return the pattern of a field whose type has no name of its own."""
    field = model.model_fields[name]
    if field.metadata:
        return next(str(one.pattern) for one in field.metadata if isinstance(one, StringConstraints))
    return next(pattern_of(choice) for choice in get_args(field.annotation) if get_args(choice))


_NO_NUL: Final = Form("holds a NUL character, which no program can be given", "hello")
_WORD: Final = "letters, digits, dots, hyphens and underscores, and start with a letter or digit"
_COUNTED: Final = "is no label: use at most 63 letters, digits, dots, hyphens and underscores"

FORMS: Final[dict[str, Form]] = {
    names.NAME_PATTERN: Form(
        "is no name: use lower-case letters, digits and inner hyphens, at most 63 (RFC 1123)", "web-1"
    ),
    names.HOST_PATTERN: Form(
        "is no host name: use lower-case labels with dots between them, such as web.example.com", "web.example.com"
    ),
    names.WILDCARD_PATTERN: Form(
        "is no host name: use lower-case labels with dots between them, such as web.example.com or "
        "*.example.com (a wildcard stands for exactly one label, at the left)",
        "web.example.com",
    ),
    names.PATH_PATTERN: Form(
        "is no URL path: start with /, percent-encode what is not a letter, digit or one of ._~!$&+,;=:@-, "
        "and leave out empty, '.' and '..' segments",
        "/shop",
    ),
    pattern_of(names.HeaderName): Form("is no header's name: use letters, digits and hyphens", "X-Request-Id"),
    pattern_of(names.HeaderValue): Form("is no header's value: use visible ASCII", "hello"),
    pattern_of(names.MatchValue): Form("cannot be matched: use visible ASCII without back-ticks", "hello"),
    pattern_of(PeopleGroup): Form("is no name of a group: leave out control characters", "platform"),
    pattern_of(TimeOfDay): Form("is no time of day: write hours and minutes, in quotes", "22:00"),
    pattern_of(TimeZone): Form("is no time zone: write it like Europe/Amsterdam", "Europe/Amsterdam"),
    pattern_of(TypeName): Form("is no type of condition or event: write it like AgentAway", "AgentAway"),
    pattern_of(names.Duration): Form("is no length of time: write a whole number and ms, s, m or h", "5s"),
    pattern_of(names.ByteSize): Form(
        "is no size: write a whole number of bytes, or one with Ki, Mi, Gi or Ti (powers of 1024)", "128Mi"
    ),
    pattern_of(names.LabelKey): Form(
        "is no label's name: use at most 63 lower-case letters, digits, dots, slashes and hyphens", "region"
    ),
    pattern_of(names.LabelValue): Form(_COUNTED, "ams"),
    pattern_of(names.EntryPointName): Form(
        "is no entry point: use letters, digits, hyphens and underscores, at most 63", "websecure"
    ),
    pattern_of(names.EnvName): Form(
        "is no variable's name: use letters, digits and underscores, and start with no digit", "LOG_LEVEL"
    ),
    pattern_of(names.Thumbprint): Form(
        "is no thumbprint: 43 characters of base64url (RFC 7638), which `cloudlunacy agent enrol` writes",
        "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
    ),
    pattern_of(names.AgeRecipient): Form(
        "is no recipient of age: age1 and 58 characters",
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    ),
    pattern_of(names.HttpsUrl): Form(
        "is no URL that is asked: write https://, a host and a path, without user, query and fragment",
        "https://acme.example.com/directory",
    ),
    pattern_of(names.MailAddress): Form("is no mail address", "ops@example.com"),
    pattern_of(Image): Form(
        "is no image: write name:tag, with the registry in front where it is not the usual one", "nginx:1.29"
    ),
    pattern_of(ImagePattern): Form(
        "covers no images: write a name without tag and digest, with /* at the end for all below it",
        "registry.example.com/shop/*",
    ),
    pattern_of(names.AbsolutePath): Form(
        "is no absolute path: start with /, use letters, digits and ._@+-, and leave out . and ..", "/var/lib/web/tls"
    ),
    pattern_of(GroupName): Form(
        "is no group of an operating system: use lower-case letters, digits, - and _", "www-data"
    ),
    pattern_of(MountPath): Form(
        "is no path in the container: start with /, and use letters, digits and ._-/", "/var/lib/data"
    ),
    pattern_of(User): Form("is no user: write a number, or two with a colon between them, in quotes", "1000:1000"),
    _field(Registry, "username"): Form("is no user's name: use no colon and no control characters", "robot"),
    pattern_of(Argument): _NO_NUL,
    pattern_of(EnvValue): _NO_NUL,
    pattern_of(ContentType): Form("is no content type: write type/subtype in lower case", "text/html"),
    pattern_of(SecretKey): Form(f"is no key of a secret: use at most 63 {_WORD}", "password"),
    pattern_of(SealedValue): Form("is no sealed value", "what `cloudlunacy secret seal` prints"),
    _field(BasicAuth, "realm"): Form(
        "is no realm: use letters, digits, spaces, dots, hyphens and underscores", "admin"
    ),
    _field(StickyCookie, "name"): Form("is no cookie's name: use at most 64 letters, digits, - and _", "backend"),
    _field(MongoDBUser, "name"): Form(f"is no user's name: use at most 63 {_WORD}", "app"),
    _field(MongoDBUser, "database"): Form("is no database: use at most 63 letters, digits, - and _", "admin"),
    pattern_of(Checksum): Form("is no checksum: copy the one that `cloudlunacy status` prints", f"sha256:{'0' * 64}"),
    _field(MongoDB, "version"): Form("is no version: write two or three numbers, in quotes", "8.0"),
    pattern_of(Reason): Form("has to be one line, without control characters", "its disk was sold"),
    pattern_of(Lifetime): Form("is no length of time: write a whole number and s, m, h or d", "30d"),
    pattern_of(Version): Form("is no version: use at most 64 letters, digits, dots, +, - and _", "1.0.0"),
}


def sentence_of(detail: ErrorDetails, subject: str, forms: Mapping[str, Form] = FORMS) -> str:
    """Say what does not fit where no file is meant: without the value, and without a regular expression."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "string_pattern_mismatch":
        form = forms.get(str(context.get("pattern")))
        return f"{subject} {form.sentence if form is not None else 'does not have the form that is needed'}"
    if kind == "value_error":
        return f"{subject} does not fit: {context.get('error', 'see its documentation')}"
    if kind in ("string_too_long", "too_long"):
        unit = "characters" if kind == "string_too_long" else "entries"
        return f"{subject} is too long: at most {context.get('max_length')} {unit} fit"
    if kind in ("string_too_short", "too_short"):
        unit = "character" if kind == "string_too_short" else "entry"
        return f"{subject} needs at least {context.get('min_length', 1)} {unit}"
    if kind in _BOUNDS:
        member, words = _BOUNDS[kind]
        return f"{subject} is out of range: it has to be {words} {context.get(member)}"
    if kind in ("literal_error", "enum"):
        return f"{subject} should be {context.get('expected')}"
    for ending, words in _KINDS.items():
        if kind.startswith(ending):
            return f"{subject} {words}"
    return f"{subject} does not fit"


_BOUNDS: Final[dict[str, tuple[str, str]]] = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_KINDS: Final[dict[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "is no field that is known",
    "json_invalid": "is no JSON",
    "string_": "has to be text",
    "int_": "has to be a whole number",
    "float_": "has to be a number",
    "finite_number": "has to be a number",
    "bool_": "has to be true or false",
    "dict_": "has to be an object",
    "model_": "has to be an object",
    "tuple_": "has to be a list",
    "list_": "has to be a list",
    "union_tag": "names no type that is known",
}
"""Beginning of a kind of error (pydantic's "Validation errors") → what it means."""


ADDRESSES: Final[dict[str, Form]] = {
    "address": Form("is no address", "203.0.113.7, or a host name"),
    "ranges": Form("is no network", "10.0.0.0/8"),
}
"""Field → form, for text that is checked without a pattern."""
RULES: Final[dict[str, str]] = {
    "neither an IP address": "Write it like 203.0.113.7, 2001:db8::7 or vps-1.example.com.",
    "not an IP address or network": "Write it like 10.0.0.0/8 or 2001:db8::/32.",
    "an address with a zone": "Write the address that every machine knows it by.",
    "link-local": "Write the address at which the fronts reach the machine.",
    "not the address of one machine": "Write the address at which the fronts reach the machine.",
    "listed twice": "Keep one of them.",
    "write either": "Keep one of the two.",
    "write exactly one": "Keep one of them.",
    "write port or portName": "Keep one of the two.",
    "exactly one key": "Start a list entry, with a hyphen, for each.",
    "is for": "Leave it out, or change the type that it is for.",
    "are for": "Leave them out, or change the type that they are for.",
    "needs": "Add what is missing.",
    "say where": "Add one of the two.",
    "leave": "Remove it.",
    "is above": "Swap them.",
}
"""Part of a rule's message → what to do; the first that is found counts. Rules are the validators of ``schemas``."""
