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

from pathlib import Path
from typing import Annotated, Final

from pydantic import StringConstraints

from reconciler.forges.connection import Access, token_from
from reconciler.forges.forge import Kind, Place
from reconciler.forges.places import place_of
from reconciler.pki.settings_file import FileSettings, read_settings_file

VARIABLE: Final = "CLOUDLUNACY_FORGE_FILE"
Text = Annotated[str, StringConstraints(max_length=512, pattern=r"^[!-~]*$")]


class ForgeSettings(FileSettings):
    """The whole file."""

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
    said = read_settings_file(path, ForgeSettings, hint=hint)
    place = place_of(remote, kind=said.kind, api=said.url, repository=said.repository)
    access = Access(token_from(said.token_file), username=said.username, ca_file=said.ca_file)
    access.token()  # a file that is not there is said at the start
    return place, access
