"""The remote: which URLs are accepted, and how git is told to get in.

git reads some URLs as commands (``ext::sh -c …``, ``--upload-pack=…``), so only forms named here pass, and the scheme
is given to git once more as the only protocol it may use. Credentials travel in the environment, never in argv, in a
configuration file or in a message.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import SplitResult, unquote, urlsplit

from reconciler.errors import Broken
from reconciler.git.cleaning import cleaned, one_line

Scheme = Literal["file", "http", "https", "ssh"]
CONNECT_SECONDS: Final = 15
MAX_SECRET_BYTES: Final = 16384
_HOST: Final = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_SCP_LIKE: Final = re.compile(rf"(?:(?P<user>{_USER})@)?(?P<host>{_HOST}):(?P<path>[^-:].*)")
_FORMS: Final = "Use https://host/path, ssh://user@host/path, git@host:path, file:///path or an absolute path."


@dataclass(frozen=True, slots=True)
class Remote:
    """An accepted remote. Make it with :meth:`parse`.

    ``url`` is what git gets and never holds a password; it is safe to show.
    """

    url: str
    scheme: Scheme
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    password_file: Path | None = field(default=None, repr=False)
    ssh_key: Path | None = None
    known_hosts: Path | None = None

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        allow_http: bool = False,
        username: str = "",
        password_file: Path | None = None,
        ssh_key: Path | None = None,
        known_hosts: Path | None = None,
    ) -> Self:
        """Accept ``url`` or say why not.

        Args:
            url: as in the settings; user and password of an https URL are taken out of it.
            allow_http: permit plain http to a host that is not this machine.
            username: for https; hosts that take a token ignore it.
            password_file: file with the password or token for https; read again for each process.
            ssh_key: private key file for ssh; without it the SSH agent is asked.
            known_hosts: host keys for ssh; a host that is not listed is refused.

        Raises:
            Broken: the URL has another form, or says something dangerous.
        """
        if not url or url.startswith("-") or any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in url) or "\\" in url:
            raise _refused(url, "it is empty, starts with a dash, or holds a backslash or a control character")
        scheme, address, user, password = _accepted(url, allow_http=allow_http)
        return cls(
            url=address,
            scheme=scheme,
            username=username or user,
            password=password,
            password_file=password_file,
            ssh_key=ssh_key,
            known_hosts=known_hosts,
        )

    def __str__(self) -> str:
        return self.url

    def environment(self) -> dict[str, str]:
        """Return the variables for a git process that talks to this remote.

        Raises:
            Broken: a named file cannot be read.
        """
        if self.scheme == "ssh":
            return {
                "GIT_ALLOW_PROTOCOL": "ssh",
                "GIT_SSH_COMMAND": self._ssh_command(),
                "GIT_SSH_VARIANT": "ssh",
            }
        return {"GIT_ALLOW_PROTOCOL": self.scheme}

    def config(self) -> dict[str, str]:
        """Return git configuration for a process that talks to this remote; it holds the credentials.

        Raises:
            Broken: the password file cannot be read.
        """
        password = self._secret()
        if self.scheme not in ("http", "https") or not password:
            return {}
        return {"http.extraHeader": f"Authorization: Basic {self._basic(password)}"}

    def secrets(self) -> tuple[str, ...]:
        """Return the values that no message may hold."""
        password = self._secret()
        return (password, self._basic(password)) if password else ()

    def _basic(self, password: str) -> str:
        return base64.b64encode(f"{self.username or 'git'}:{password}".encode()).decode("ascii")

    def _secret(self) -> str:
        if self.password_file is None:
            return self.password
        try:
            with self.password_file.open("rb") as file:
                text = file.read(MAX_SECRET_BYTES + 1).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Broken(f"The password file {self.password_file} cannot be read: {reason}.") from None
        if not text or len(text) > MAX_SECRET_BYTES or not text.isprintable():
            raise Broken(f"The password file {self.password_file} does not hold one line with a password or token.")
        return text

    def _ssh_command(self) -> str:
        options = [
            # No configuration file: an Include or a ProxyCommand there would run in the control plane's name.
            *("-F", "none"),
            *("-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", f"ConnectTimeout={CONNECT_SECONDS}"),
            *("-o", "ServerAliveInterval=15"),
            *("-o", "ClearAllForwardings=yes"),
        ]
        if self.ssh_key is not None:
            options += ["-i", str(_readable(self.ssh_key)), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
        if self.known_hosts is not None:
            # ssh splits this value at spaces, unless it is quoted.
            files = f'UserKnownHostsFile="{_readable(self.known_hosts)}"'
            options += ["-o", files, "-o", "GlobalKnownHostsFile=none"]
        return shlex.join(["ssh", *options])


def _accepted(url: str, *, allow_http: bool) -> tuple[Scheme, str, str, str]:
    """Return scheme, URL for git, user and password."""
    if url.startswith("/"):
        return "file", url, "", ""
    if "://" not in url:
        return _scp_like(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused(url, "host or port cannot be read") from None
    match parts.scheme:
        case "file":
            path = unquote(parts.path)
            if parts.netloc or not path.startswith("/") or not path.isprintable():
                raise _refused(url, "a file URL has no host and an absolute path")
            return "file", path, "", ""
        case "https" | "http":
            return _web(url, parts, port, allow_http=allow_http)
        case "ssh":
            user = parts.username or ""
            if parts.password is not None or not re.fullmatch(rf"(?:{_USER}@)?{_HOST}(?::\d+)?", parts.netloc):
                raise _refused(url, "an ssh URL is ssh://user@host:port/path, without a password")
            if not parts.path.startswith("/") or parts.path.startswith(("/-", "/~-")) or parts.query or parts.fragment:
                raise _refused(url, "the path must be absolute and must not start with a dash")
            return "ssh", url, user, ""
    raise _refused(url, f'scheme "{parts.scheme}" is not accepted')


def _scp_like(url: str) -> tuple[Scheme, str, str, str]:
    match = _SCP_LIKE.fullmatch(url)
    if match is None:
        raise _refused(url, "it is neither a URL, an absolute path nor git@host:path")
    return "ssh", url, match["user"] or "", ""


def _web(url: str, parts: SplitResult, port: int | None, *, allow_http: bool) -> tuple[Scheme, str, str, str]:
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    if not re.fullmatch(_HOST, shown) or parts.query or parts.fragment or " " in parts.path:
        raise _refused(url, "host, path or query cannot be used")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise Broken(
            f"The repository URL {cleaned(url)} is plain http: anybody on the way could change commits.",
            hint="Use https, or permit plain http in the settings.",
        )
    address = f"{parts.scheme}://{shown}{f':{port}' if port is not None else ''}{parts.path}"
    scheme: Scheme = "https" if parts.scheme == "https" else "http"
    return scheme, address, unquote(parts.username or ""), unquote(parts.password or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _readable(path: Path) -> Path:
    absolute = path.absolute()
    if not absolute.is_file() or '"' in str(absolute):
        raise Broken(f"The file {absolute}, needed for ssh, is not there or has a quote in its name.")
    return absolute


def _refused(url: str, why: str) -> Broken:
    return Broken(f'The repository URL "{one_line(cleaned(url, limit=200))}" is refused: {why}.', hint=_FORMS)
