"""Which forge, and how to get in: the file that ``CLOUDLUNACY_FORGE_FILE`` names.

TOML, readable by its owner alone. All but the token follows from the URL of the git remote where the forge is a public
one, or its host is called github, gitlab, gitea or forgejo::

    token-file = "/etc/cloudlunacy/forge-token"     # one line
    kind = "gitea"                                  # github, gitlab, gitea (Forgejo too), bitbucket
    url = "https://git.example.com/api/v1"          # of the API
    repository = "platform/fleet"
    username = "deploy@example.com"                 # Bitbucket: with an API token; without, an access token
    ca-file = "/etc/cloudlunacy/git-ca.pem"         # roots that vouch for the forge; without it the system's
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from reconciler.desired.grammar import sentence_of
from reconciler.errors import Broken
from reconciler.forges.connection import Access, token_from
from reconciler.forges.forge import Kind, Place
from reconciler.forges.places import place_of
from reconciler.pki.private_files import read_private

VARIABLE: Final = "CLOUDLUNACY_FORGE_FILE"
Text = Annotated[str, StringConstraints(max_length=512, pattern=r"^[!-~]*$")]


class ForgeSettings(BaseModel):
    """The whole file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    token_file: Path
    kind: Kind | None = None
    url: Text = ""
    repository: Text = ""
    username: Text = ""
    ca_file: Path | None = None


def read_settings(path: Path, remote: str) -> tuple[Place, Access]:
    """Read the file. ``remote``: URL of the git remote, without password.

    Raises:
        Broken: it is open to others, cannot be read, or does not say what it should. No message repeats a value.
    """
    hint = f"{VARIABLE} names it; docs/pull-requests.md shows what it holds."
    try:
        said = ForgeSettings.model_validate(tomllib.loads(read_private(path).decode()))
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror}.", hint=hint) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise Broken(f"{path}: {where}: {sentence_of(first, 'this')}.", hint=hint) from None
    except ValueError:
        raise Broken(f"{path} is no TOML.", hint=hint) from None
    place = place_of(remote, kind=said.kind, api=said.url, repository=said.repository)
    access = Access(token_from(said.token_file), username=said.username, ca_file=said.ca_file)
    access.token()  # a file that is not there is said at the start
    return place, access
