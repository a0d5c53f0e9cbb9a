"""Which forge a remote belongs to, and where its API answers. PURE."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from reconciler.errors import Broken
from reconciler.forges.forge import Kind, Place

_API: Final[dict[Kind, str]] = {"github": "/api/v3", "gitlab": "/api/v4", "gitea": "/api/v1"}
_PUBLIC: Final[dict[str, tuple[Kind, str]]] = {
    "github.com": ("github", "https://api.github.com"),
    "gitlab.com": ("gitlab", "https://gitlab.com/api/v4"),
    "codeberg.org": ("gitea", "https://codeberg.org/api/v1"),
    "gitea.com": ("gitea", "https://gitea.com/api/v1"),
    "bitbucket.org": ("bitbucket", "https://api.bitbucket.org/2.0"),
}
_NAMES: Final[dict[str, Kind]] = {"github": "github", "gitlab": "gitlab", "gitea": "gitea", "forgejo": "gitea"}
"""First labels of host names that tell what answers there."""
_SCP_LIKE: Final = re.compile(r"(?:[^@/:]+@)?(?P<host>[^@/:]+):(?P<path>[^/].*)")
_NAME: Final = r"[A-Za-z0-9_~][A-Za-z0-9._~-]{0,99}"
_REPOSITORY: Final = re.compile(rf"{_NAME}(?:/{_NAME}){{1,20}}")
_HINT: Final = "Write kind, url and repository into the file that CLOUDLUNACY_FORGE_FILE names."


def place_of(remote: str, *, kind: Kind | None = None, api: str = "", repository: str = "") -> Place:
    """Return the forge of a git remote. What is given counts; the rest follows from the remote's URL.

    Raises:
        Broken: it does not follow, or makes no sense.
    """
    host, netloc, path = _parts(remote)
    known = _PUBLIC.get(host)
    found_kind = kind or (known[0] if known else _NAMES.get(host.partition(".")[0]))
    if found_kind is None:
        raise Broken(f'Which kind of forge "{host or remote}" is cannot be told from its name.', hint=_HINT)
    if not api and known is not None and known[0] == found_kind:
        api = known[1]
    if not api and host and found_kind in _API:
        api = f"https://{netloc}{_API[found_kind]}"
    if not api:
        raise Broken(f"Where the API of the {found_kind} forge answers cannot be told from the remote.", hint=_HINT)
    return Place(found_kind, checked_api(api), checked_repository(repository or path, found_kind))


def checked_api(api: str) -> str:
    """Return the URL of an API, without slash at its end.

    Raises:
        Broken: it is no https URL, nor http on this machine; or it holds a password.
    """
    try:
        parts = urlsplit(api)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    if not host or not is_safe or parts.username is not None or parts.query or parts.fragment or not api.isprintable():
        text = "The URL of the forge's API is no https URL without user, query and fragment."
        raise Broken(text, hint="Write it like https://git.example.com/api/v1.")
    return api.rstrip("/")


def checked_repository(repository: str, kind: Kind) -> str:
    """Return ``owner/name``; at GitLab the groups above it may be several.

    Raises:
        Broken: it is none.
    """
    is_deep = repository.count("/") > 1 and kind != "gitlab"
    if not _REPOSITORY.fullmatch(repository) or is_deep or ".." in repository:
        text = f"{repository[:120]!r} is no repository of a {kind} forge."
        raise Broken(text, hint="Write it like platform/fleet.")
    return repository


def _parts(remote: str) -> tuple[str, str, str]:
    """Return host, host with port where it is a web one, and path of the repository."""
    if "://" in remote:
        try:
            parts = urlsplit(remote)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return "", "", ""
        netloc = f"{host}:{port}" if port is not None and parts.scheme == "https" else host
        return (host, netloc, _tidy(parts.path)) if parts.scheme in ("https", "http", "ssh") else ("", "", "")
    match = _SCP_LIKE.fullmatch(remote)
    if match is None:
        return "", "", ""
    host = match["host"].lower()
    return host, host, _tidy(match["path"])


def _tidy(path: str) -> str:
    return path.strip("/").removesuffix(".git")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
