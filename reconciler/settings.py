"""Settings of ``serve``, and the only place that reads the environment.

Command-line flags say what is not secret; the environment names files that hold what is. A secret never stands in an
argument, where every user of the machine could read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.errors import Broken

ENVIRONMENT = {
    "CLOUDLUNACY_WEBHOOK_SECRET_FILE": "file with the secret that webhooks are signed with",
    "CLOUDLUNACY_GIT_TOKEN_FILE": "file with the token for an https remote",
    "CLOUDLUNACY_GIT_USERNAME": "user name that goes with the token (default: x-access-token)",
    "CLOUDLUNACY_GIT_SSH_KEY": "private key for an ssh remote",
    "CLOUDLUNACY_GIT_KNOWN_HOSTS": "known_hosts file for an ssh remote",
    "CLOUDLUNACY_ALLOWED_SIGNERS": "allowed signers (ssh-keygen -Y) for commit signatures",
    "CLOUDLUNACY_GPG_KEYRING": "exported public keys (gpg --export) for commit signatures",
    "CLOUDLUNACY_TOKEN_FILE": "file with the token that commands present to --server",
    "CLOUDLUNACY_CA_FILE": "file with the roots (PEM) that commands trust for --server (default: the system's)",
    "CLOUDLUNACY_KEY_FILE": "file with the key that private keys are sealed with (32 random bytes in base64)",
    "CLOUDLUNACY_KEY_PASSPHRASE_FILE": "file with a passphrase, instead of that key",
    "CLOUDLUNACY_ACME_FILE": "file that says whom ACME servers and name servers are trusted by (docs/certificates.md)",
    "CLOUDLUNACY_FORGE_FILE": "file that says which forge gets statuses and pull requests (docs/pull-requests.md)",
    "CLOUDLUNACY_OIDC_FILE": "file that says which provider people log in with (docs/access.md)",
    "CLOUDLUNACY_OTLP_ENDPOINT": "URL of an OpenTelemetry collector that gets traces (docs/monitoring.md)",
    "TRAEFIK_BIN": "Traefik program for the preflight (default: looked up on PATH)",
}
"""Every variable that is read, for ``--help`` and the documentation."""


_SECRETS = frozenset(
    {
        "CLOUDLUNACY_WEBHOOK_SECRET_FILE",
        "CLOUDLUNACY_GIT_TOKEN_FILE",
        "CLOUDLUNACY_GIT_SSH_KEY",
        "CLOUDLUNACY_TOKEN_FILE",
        "CLOUDLUNACY_KEY_FILE",
        "CLOUDLUNACY_KEY_PASSPHRASE_FILE",
    }
)
"""Those in which a secret may stand by mistake, in place of its file: no message repeats them."""


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """One machine that runs Traefik: the file that it watches, and its API."""

    file: Path
    api: str


@dataclass(frozen=True, slots=True)
class GitSettings:
    """How the remote is reached. Times in seconds."""

    repo: str
    branch: str = "main"
    username: str = "x-access-token"
    token_file: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    allowed_signers: Path | None = None
    gpg_keyring: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that ``serve`` is told."""

    git: GitSettings
    data: Path
    host: str = "127.0.0.1"
    port: int = 7300
    fronts: tuple[FrontSettings, ...] = ()
    poll_seconds: float = 30.0
    public_url: str = ""
    """Address under which agents and people reach the control plane; default: https://HOST:PORT."""
    plain_http: bool = False
    """Without TLS, for a proxy on the same machine that ends it."""
    traefik_binary: str = ""
    webhook_secret_file: Path | None = None
    key_file: Path | None = None
    key_passphrase_file: Path | None = None
    """One of these two seals the private keys; without, they lie in clear."""
    acme_file: Path | None = None
    forge_file: Path | None = None
    oidc_file: Path | None = None
    otlp_endpoint: str = ""
    """Where traces go, such as http://127.0.0.1:4318/v1/traces; empty for nowhere."""
    acme_http_port: int = 0
    """On loopback, where fronts lead ACME servers that look for answers; 0 takes a free one."""
    heartbeat_seconds: float = 15.0
    read_back_seconds: float = 20.0
    """How long a front may take to load a generation."""
    rotation_pace: float = 1.0
    """By which the times of rotations, and the life of access tokens, are multiplied: less than 1 for a drill."""
    agent_series: int = 500
    """Agents of which Prometheus gets numbers, the first by name."""
    deployment_series: int = 2000
    """The same for deployments, on all agents together."""
    push_burst: int = 6
    push_seconds: float = 10.0
    """``push_burst`` pushes at once, then one in ``push_seconds``."""


def bracketed(host: str) -> str:
    """Write a host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def git_settings(repo: str, branch: str, environment: Mapping[str, str]) -> GitSettings:
    """Combine the flags with what the environment says about credentials."""
    return GitSettings(
        repo=repo,
        branch=branch,
        username=environment.get("CLOUDLUNACY_GIT_USERNAME", "x-access-token"),
        token_file=_file(environment, "CLOUDLUNACY_GIT_TOKEN_FILE"),
        ssh_key=_file(environment, "CLOUDLUNACY_GIT_SSH_KEY"),
        known_hosts=_file(environment, "CLOUDLUNACY_GIT_KNOWN_HOSTS"),
        allowed_signers=_file(environment, "CLOUDLUNACY_ALLOWED_SIGNERS"),
        gpg_keyring=_file(environment, "CLOUDLUNACY_GPG_KEYRING"),
    )


def _file(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name)
    if not value:
        return None
    path = Path(value)
    try:
        found = path.is_file()
    except OSError:  # the name is longer than any may be
        found = False
    if not found:
        what = "no file" if name in _SECRETS else f"{value}, which is no file"
        raise Broken(f"{name} names {what}.", hint=f"It should be a {ENVIRONMENT[name]}.")
    return path


def otlp_endpoint(environment: Mapping[str, str]) -> str:
    """Return the URL that traces go to, empty where none is set.

    Raises:
        Broken: when it is no URL over HTTP.
    """
    value = environment.get("CLOUDLUNACY_OTLP_ENDPOINT", "")
    if value:
        try:
            parts = urlsplit(value)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise Broken(
                "CLOUDLUNACY_OTLP_ENDPOINT is no URL over HTTP.",
                hint="Write the whole of it, such as http://127.0.0.1:4318/v1/traces.",
            )
    return value


def secret_file(environment: Mapping[str, str], name: str) -> Path | None:
    """Return the file that a variable names.

    Raises:
        Broken: when the variable names no file.
    """
    return _file(environment, name)
