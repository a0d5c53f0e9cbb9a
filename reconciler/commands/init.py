"""Write a new state repo: small, valid, with CI files, schemas for editors and a page that tells the next steps."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import jinja2
from pydantic import TypeAdapter, ValidationError

from reconciler.commands.schemas import write_schemas
from reconciler.desired.grammar import sentence_of
from reconciler.errors import Broken
from reconciler.package_data import data_directory
from schemas.names import Hostname, Name

SCHEMAS: Final = Path(".cloudlunacy/schemas")
"""Where the first line of every YAML file looks for its schema."""
_TAKEN_FROM_EXAMPLE: Final = (".editorconfig", ".github/workflows/validate.yml", ".gitlab-ci.yml")
_SOURCE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9@:/._~%+#&=-]+")
_CREDENTIALS: Final = re.compile(r"[A-Za-z0-9+.-]+://(?:[^/]*:[^/]*@|(?<!ssh://)[^/]*@)")
"""A password, or a user elsewhere than with ssh: that is mostly a token."""
_SETTING: Final = re.compile(r"^( *CLOUDLUNACY_SOURCE: ).*$", re.MULTILINE)
_SUFFIX: Final = ".j2"
_HOSTNAME: Final[TypeAdapter[str]] = TypeAdapter(Hostname)
_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)


def init_repo(directory: Path, *, domain: str, team: str, ci_source: str = "") -> list[Path]:
    """Fill ``directory`` with a state repo of one team and one agent; return the files that were written, sorted.

    ``ci_source``: the URL from which CI installs the checks; without it CI asks for a variable of that meaning.

    The directory is made where it is missing; one that holds nothing but ``.git`` counts as empty.

    Raises:
        Broken: when the directory holds something, cannot be written, or ``domain`` or ``team`` is no valid name,
            or ``ci_source`` is no URL, or one with a password.
    """
    _check_name("domain", _HOSTNAME, domain, "Write a host name such as example.com.")
    _check_name("team", _NAME, team, "Write lower-case letters, digits and inner hyphens, such as shop.")
    if _CREDENTIALS.match(ci_source):
        hint = "Let CI log in by other means, such as a deploy key or a .netrc."
        raise Broken("The URL for CI is written without password: git keeps it.", hint=hint)
    if ci_source and not _SOURCE.fullmatch(ci_source):
        hint = "Write it like git+https://git.example.com/platform/cloudlunacy.git@<commit>."
        raise Broken(f'"{ci_source}" is no URL that pip installs from.', hint=hint)
    try:
        _check_empty(directory)
        written = [*_render(directory, domain, team), *_copy(directory, ci_source)]
        return sorted([*written, *write_schemas(directory / SCHEMAS)])
    except OSError as error:
        raise Broken(
            f"{directory} cannot be written: {error.strerror or error}.", hint="Choose another directory."
        ) from None


def copy_example(directory: Path) -> list[Path]:
    """Fill ``directory`` with the complete example: two teams, every kind of object, every middleware.

    Raises:
        Broken: when the directory holds something or cannot be written.
    """
    source = data_directory("state-repo-example")
    try:
        _check_empty(directory)
        shutil.copytree(source, directory, dirs_exist_ok=True)
    except OSError as error:
        raise Broken(
            f"{directory} cannot be written: {error.strerror or error}.", hint="Choose another directory."
        ) from None
    return sorted(directory / path.relative_to(source) for path in source.rglob("*") if path.is_file())


def _check_name(what: str, grammar: TypeAdapter[str], value: str, hint: str) -> None:
    try:
        grammar.validate_python(value)
    except ValidationError as error:
        reason = sentence_of(error.errors(include_url=False, include_input=False)[0], "it")
        raise Broken(f'"{value}" cannot be the {what}: {reason}.', hint=hint) from None


def _check_empty(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise Broken(f"{directory} is a file.", hint="Name a directory that is empty or does not exist.")
    if directory.is_dir() and any(entry.name != ".git" for entry in directory.iterdir()):
        raise Broken(f"{directory} is not empty.", hint="Name a directory that is empty or does not exist.")


def _render(directory: Path, domain: str, team: str) -> list[Path]:
    source = data_directory("templates") / "state-repo"
    environment = jinja2.Environment(  # noqa: S701 - YAML and Markdown; both values are checked names
        loader=jinja2.FileSystemLoader(source), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    values = {"domain": domain, "team": team, "fleet": domain.partition(".")[0]}
    written = []
    for template in sorted(source.rglob(f"*{_SUFFIX}")):
        name = template.relative_to(source).as_posix()
        target = directory / name.removesuffix(_SUFFIX).replace("/team/", f"/{team}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(environment.get_template(name).render(values), encoding="utf-8")
        written.append(target)
    return written


def _copy(directory: Path, ci_source: str) -> list[Path]:
    for name in _TAKEN_FROM_EXAMPLE:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (data_directory("state-repo-example") / name).read_text(encoding="utf-8")
        if ci_source:
            text = _SETTING.sub(rf'\1"{ci_source}"', text)
        target.write_text(text, encoding="utf-8")
    return [directory / name for name in _TAKEN_FROM_EXAMPLE]
