"""MongoDB's connection strings: written with every reserved character encoded, and read back. Pure.

https://www.mongodb.com/docs/manual/reference/connection-string-formats/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

PORT: Final = 27017
SELECTION_MS: Final = 1500
"""How long a driver looks for its server. Without it a wrong name of the authority is told after 30 seconds."""
SCHEME: Final = "mongodb://"
PLACEHOLDER: Final = re.compile(r"<[a-z]+>")
"""A gap for a person to fill. It stands as it is."""


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What stands in one. A user, password or database such as ``<password>`` is a gap for a person to fill."""

    host: str
    port: int = PORT
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    auth_source: str = ""
    """The database that knows the user, where it is another one."""
    ca_file: str = ""
    """On the machine of the client: whom it trusts; empty: what its system trusts."""

    def __str__(self) -> str:
        """Write it, the password too."""
        credentials = f"{_quoted(self.user)}:{_quoted(self.password)}@" if self.user else ""
        options = "&".join(f"{name}={quote(value, safe='/')}" for name, value in self._options().items())
        return f"{SCHEME}{credentials}{self.host}:{self.port}/{_quoted(self.database)}?{options}"

    def _options(self) -> Mapping[str, str]:
        options = {"tls": "true"}
        if self.ca_file:
            options["tlsCAFile"] = self.ca_file
        if self.auth_source and self.auth_source != self.database:
            options["authSource"] = self.auth_source
        if self.user:
            # without it a driver asks which mechanism a user has, and tries SCRAM-SHA-1 for one that nobody knows
            options["authMechanism"] = "SCRAM-SHA-256"
        # the name leads to this database alone: a replica set would name members that nobody reaches
        return options | {
            "directConnection": "true",
            "retryWrites": "false",
            "serverSelectionTimeoutMS": str(SELECTION_MS),
        }


def _quoted(text: str) -> str:
    return text if PLACEHOLDER.fullmatch(text) else quote(text, safe="")
