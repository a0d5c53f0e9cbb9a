"""Talk to a running control plane: ``--server URL`` with a token from a file, or ``--data DIR`` on its machine."""

from __future__ import annotations

import argparse
import shlex
import ssl
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from reconciler.commands import trust
from reconciler.commands.trust import CA_FILE, Trust, unreachable
from reconciler.errors import Broken, Misused, Refused
from reconciler.pki.operator_credential import OperatorCredential
from reconciler.settings import secret_file
from schemas.text import visible

TIMEOUT = 30.0
M = TypeVar("M", bound=BaseModel)
_TOKEN = "CLOUDLUNACY_TOKEN_FILE"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, slots=True)
class Target:
    """Where the control plane is, and how we prove who we are."""

    server: str
    credential: OperatorCredential | None
    token_file: Path | None
    trust: Trust = field(default_factory=Trust)

    def headers(self) -> dict[str, str]:
        """Return the headers of one request."""
        if self.credential is not None:
            return self.credential.headers(time.time())
        if self.token_file is not None:
            return {"Authorization": f"Bearer {_token(self.token_file)}"}
        return {}

    def tls(self) -> ssl.SSLContext:
        """Return what to verify the control plane with.

        Raises:
            Broken, Transient: when it was to be known by a fingerprint, and is not.
        """
        return self.trust.context(self.server)


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise Broken(
            f"{path} cannot be read: {error.strerror}.", hint=f"{_TOKEN} should name a readable file."
        ) from None
    except ValueError:
        token = ""
    if not token.isprintable() or " " in token or not token:
        raise Broken(f"{path} holds no token.", hint="It should hold one line.")
    return token


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--server`` and ``--data``, of which one is needed, and whom to trust at the former."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--server", metavar="URL", help=f"control plane; the token comes from the file in {_TOKEN}")
    group.add_argument("--data", type=Path, metavar="DIR", help="data directory of serve, on the same machine")
    add_trust_options(parser)


def add_trust_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--ca-file`` and ``--ca-sha256``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help=f"roots (PEM) for --server (default: {CA_FILE}, the system's)",
    )
    group.add_argument("--ca-sha256", metavar="HEX", help="fingerprint of the control plane's authority, for --server")


def target_words(options: argparse.Namespace) -> str:
    """Return the options of :func:`add_target_options` as they were given, to be pasted into a shell."""
    if options.data is not None:
        return shlex.join(["--data", str(options.data)])
    words = ["--server", options.server]
    if options.ca_file is not None:
        words += ["--ca-file", str(options.ca_file)]
    elif options.ca_sha256:
        words += ["--ca-sha256", options.ca_sha256]
    return shlex.join(words)


def target_of(options: argparse.Namespace, environment: Mapping[str, str]) -> Target:
    """Find out whom to ask.

    Raises:
        Broken: when the data directory holds no credential, or the variable names no file.
        Misused: when the URL holds a user.
    """
    if options.data is not None:
        return local_target(options.data)
    if "@" in options.server:
        hint = f"The token comes from the file that {_TOKEN} names."
        raise Misused("the URL of the control plane is written without user and password.", hint=hint)
    return Target(options.server.rstrip("/"), None, secret_file(environment, _TOKEN), trust_of(options, environment))


def local_target(data: Path) -> Target:
    """Return the control plane of a data directory on this machine.

    Raises:
        Broken: when it holds no credential.
    """
    credential = OperatorCredential.load(data)
    return Target(credential.address, credential, None, Trust(ca=credential.ca))


def trust_of(options: argparse.Namespace, environment: Mapping[str, str]) -> Trust:
    """Find out whom to trust for ``--server``.

    Raises:
        Broken: when a file or a fingerprint is none.
    """
    if options.ca_sha256:
        return Trust.of_fingerprint(options.ca_sha256)
    path = options.ca_file or secret_file(environment, CA_FILE)
    return Trust() if path is None else Trust.of_file(path)


class Client:
    """One conversation with the API."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.days_left: float | None = None
        """Of the certificate that the control plane presented last; None over plain HTTP."""
        self.presented = b""
        """That certificate (DER); empty over plain HTTP."""
        try:
            self._http = httpx.Client(
                base_url=target.server, verify=target.tls(), timeout=TIMEOUT, trust_env=False, follow_redirects=False
            )
        except httpx.InvalidURL as error:
            raise Broken(f"{target.server!r} is no URL: {error}.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of a GET."""
        return self._ask("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that a POST was answered with."""
        return self._ask("POST", path, json=dict(body))

    def send(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that any request was answered with; ``options`` as httpx has them."""
        return self._ask(method, path, **options)

    def _ask(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
        headers = {**options.pop("headers", {}), **self._target.headers()}
        try:
            answer = self._http.request(method, f"/api/v1{path}", headers=headers, **options)
        except httpx.InvalidURL as error:
            raise Broken(f"{self._target.server!r} is no URL: {error}.") from None
        except httpx.HTTPError as error:
            raise unreachable(self._target.server, error) from None
        stream = answer.extensions.get("network_stream")
        self.days_left, self.presented = trust.days_left(stream, time.time()), trust.presented(stream)
        if not answer.is_success:
            raise _refused(answer)
        try:
            return answer.json()
        except ValueError:
            raise self._stranger() from None

    def lines(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | None
    ) -> Generator[str, None, None]:
        """Yield the lines of an answer as they come, without empty ones; closing the generator ends the request."""
        headers = self._target.headers()
        params = {name: value for name, value in query.items() if value is not None}
        content = None if body is None else dict(body)
        try:
            with self._http.stream(method, f"/api/v1{path}", headers=headers, params=params, json=content) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refused(answer)
                yield from filter(None, answer.iter_lines())
        except httpx.InvalidURL as error:
            raise Broken(f"{self._target.server!r} is no URL: {error}.") from None
        except httpx.HTTPError as error:
            raise unreachable(self._target.server, error) from None

    def read(self, model: type[M], path: str, **query: Any) -> M:  # noqa: ANN401 - any JSON
        """Return the answer to a GET as a model."""
        try:
            return model.model_validate(self.get(path, **query))
        except ValidationError:
            raise self._stranger() from None

    def _stranger(self) -> Broken:
        return Broken(
            f"what answers at {self._target.server} is no control plane of this version.", hint="Check the address."
        )


def _refused(answer: httpx.Response) -> Refused:
    try:
        problem = answer.json()
        text, hint = str(problem.get("detail") or problem["title"]), str(problem.get("hint", ""))
        wrong = [f"{one['field'] or 'the body'}: {one['message']}" for one in problem.get("errors", ())]
        wrong += [_problem_line(one) for one in problem.get("problems", ())]
        text = "\n  ".join([text, *wrong])
        code = str(problem.get("type", "")).rpartition(":")[2]
    except (ValueError, KeyError, AttributeError, TypeError):
        text, hint, code = f"the control plane answers {answer.status_code} {answer.reason_phrase}.", "", "unknown"
    if answer.status_code == httpx.codes.UNAUTHORIZED and not hint:
        hint = f"Use --data on its machine, or put a token into the file that {_TOKEN} names."
    return Refused(text, status=answer.status_code, code=code, hint=hint)


def _problem_line(one: Mapping[str, Any]) -> str:
    return visible(f"{one['file']}:{one['line']}:{one['column']} {one['code']}: {one['message']}")
