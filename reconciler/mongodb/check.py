"""Finds out, step by step, what is wrong with the way to a database, and says it in one sentence.

1. ``address``: the name leads to an address. 2. ``tcp``: somebody listens there. 3. ``tls``: who presents a certificate
for this name, of an authority that is trusted. 4. ``login``: whoever that is knows the user. All of it within
:data:`SECONDS`, whatever the network does: a driver that meets the same fault tries for much longer and says less.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

from reconciler.errors import Broken
from reconciler.mongodb.connection_string import PLACEHOLDER
from reconciler.mongodb.doorman import SENTENCES
from schemas.route import RouteSpec
from schemas.tls import WRONG_NAME, speaks_no_tls, untrusted

SECONDS: Final = 1.9
_SELF_SIGNED: Final = 18
_WRONG_USER: Final = frozenset({18, 334})
"""AuthenticationFailed, MechanismUnavailable: of a user that it does not know a server names no mechanism, and drivers
then try one that is too old."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to, and as whom. ``address`` is tried in place of what DNS says; ``route`` is known from a state repo."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    auth_source: str = ""
    tls: bool = True
    ca_file: str = ""
    address: str = ""
    route: RouteSpec | None = None
    guess: str = ""
    """``Did you mean …?``, where the state repo does not know the host."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A step that went well."""

    step: str
    found: str


def check(wanted: Wanted) -> Iterator[Passed]:
    """Go through the steps.

    Raises:
        Broken: at the first one that fails; the message says what is wrong, the hint what to do.
    """
    end = time.monotonic() + SECONDS

    def left() -> float:
        return max(0.05, end - time.monotonic())

    _read_through(wanted)
    addresses = [wanted.address] if wanted.address else _resolved(wanted.host, wanted.port, left())
    yield Passed("address", f"{wanted.host} is {', '.join(addresses)}")
    with _connected(wanted, addresses, left) as connection:
        address = str(connection.getpeername()[0])
        yield Passed("tcp", f"{address} port {wanted.port} is open")
        yield Passed("tls", _shaken(wanted, connection, left()))
    yield Passed("login", _logged_in(wanted, address, left()))


def _read_through(wanted: Wanted) -> None:
    """Find what no connection is needed for."""
    if not wanted.tls:
        hint = "Write tls=true into the connection string."
        raise Broken("the connection string asks for no TLS, and databases are reached over TLS only.", hint=hint)
    gap = next((one for one in (wanted.user, wanted.password) if PLACEHOLDER.fullmatch(one)), "")
    if gap:
        hint = "Fill it in, its reserved characters percent-encoded."
        raise Broken(f"the connection string still has the gap {gap}.", hint=hint)
    with suppress(ValueError):
        ipaddress.ip_address(wanted.host.strip("[]"))
        raise Broken(
            f"{wanted.host} is an address, and TLS sends no server name (SNI) for one: nobody knows which database "
            "is meant.",
            hint="Connect to <agent>.mongodb.<domain>; --connect ADDRESS tries where DNS does not lead there yet.",
        )


def _resolved(host: str, port: int, seconds: float) -> list[str]:
    found: list[str] = []
    failure: list[OSError] = []

    def ask() -> None:
        try:
            found.extend(
                dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            )
        except OSError as error:
            failure.append(error)

    # a resolver knows no deadline, so it is left behind where it takes too long
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(min(seconds, 1.0))
    if found:
        return found
    why = "has no address" if failure else "is not resolved in time"
    hint = "Let *.mongodb.<domain> lead to the front in DNS; --connect ADDRESS tries without."
    raise Broken(f"{host} {why}.", hint=hint)


@contextmanager
def _connected(wanted: Wanted, addresses: list[str], left: Callable[[], float]) -> Iterator[socket.socket]:
    where, failure = f"{wanted.host} port {wanted.port}", OSError()
    for address in addresses:
        try:
            connection = socket.create_connection((address, wanted.port), min(left(), 1.0))
        except OSError as error:
            failure = error
            continue
        with connection:
            yield connection
        return
    if isinstance(failure, ConnectionRefusedError):
        hint = "The front (Traefik) is down, or its entry point for MongoDB has another port."
        raise Broken(f"nobody listens at {where}.", hint=hint)
    if isinstance(failure, TimeoutError):
        hint = "A firewall may drop it, or the machine is down."
        raise Broken(f"{where} does not answer.", hint=hint)
    raise Broken(f"{where} cannot be reached: {failure.strerror or failure}.")


def _shaken(wanted: Wanted, connection: socket.socket, seconds: float) -> str:
    context = trusting(wanted.ca_file)
    connection.settimeout(seconds)
    where = f"{wanted.host} port {wanted.port}"
    try:
        with context.wrap_socket(connection, server_hostname=wanted.host) as secured:
            certificate: Any = secured.getpeercert()
            return f"{secured.version()}, the certificate is good until {certificate['notAfter']}"
    except ssl.SSLCertVerificationError as error:
        raise _distrusted(error, where) from None
    except TimeoutError:
        hint = "Is this the port of the front's entry point for MongoDB?"
        raise Broken(f"{where} takes the connection and says nothing.", hint=hint) from None
    except ssl.SSLError as error:
        if speaks_no_tls(error.reason or ""):
            hint = "Is this the port of the front's entry point for MongoDB?"
            raise Broken(f"what answers at {where} speaks no TLS.", hint=hint) from None
        raise _closed(wanted) from None
    except OSError:
        raise _closed(wanted) from None


def trusting(ca_file: str) -> ssl.SSLContext:
    """Return what verifies with the roots of a file, or with the system's.

    Raises:
        Broken: when the file holds none.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:  # ssl.SSLError is one of the former
        reason = getattr(error, "strerror", None) or "it holds no certificates (PEM)"
        raise Broken(f"{ca_file} cannot be used to verify: {reason}.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _distrusted(error: ssl.SSLCertVerificationError, where: str) -> Broken:
    code = error.verify_code
    if code == _SELF_SIGNED:
        return Broken(
            f"{where} presents a certificate that the front made for itself: it has none for this name.",
            hint="cloudlunacy pki status says what keeps the certificate for *.mongodb.<domain> away.",
        )
    if code in WRONG_NAME:
        hint = "The name has to be <agent>.mongodb.<domain>; cloudlunacy mongodb uri prints it."
        return Broken(f"the certificate at {where} is for other names.", hint=hint)
    hint = "Give the fleet's roots with --ca-file (tlsCAFile for drivers): ca.pem in the data directory of serve."
    if untrusted(code, "", where).startswith("the certificate of"):
        return Broken(untrusted(code, error.verify_message, where))
    return Broken(f"the certificate at {where} is of an authority that is not trusted here.", hint=hint)


def _closed(wanted: Wanted) -> Broken:
    """Traefik closes without a word: what the route says tells what it may be."""
    where = f"the front closed the connection to {wanted.host}"
    middlewares = wanted.route.middlewares if wanted.route is not None else ()
    causes = []
    for one in middlewares:
        if one.ip_allow_list is not None:
            causes.append(f"your address is not on the ipAllowList ({', '.join(one.ip_allow_list.ranges)})")
        if one.connection_limit is not None:
            causes.append(f"you have {one.connection_limit.amount} connections already (connectionLimit)")
    if wanted.route is None:
        causes = ["your address is not on the route's ipAllowList", "its connectionLimit is reached"]
    causes = [f"the database on {wanted.host.partition('.')[0]} is down or refuses the front", *causes]
    hint = "cloudlunacy status and the agent's own log say whether it runs."
    if len(causes) == 1:
        return Broken(f"{where}: {causes[0]}.", hint=hint)
    return Broken(f"{where}. Either {', or '.join(causes)}.", hint=hint)


def _logged_in(wanted: Wanted, address: str, seconds: float) -> str:
    options: dict[str, Any] = {"tlsCAFile": wanted.ca_file} if wanted.ca_file else {}
    if wanted.user:
        source = wanted.auth_source or wanted.database or "admin"
        options |= {"username": wanted.user, "password": wanted.password, "authSource": source}
    milliseconds = int(seconds * 1000)
    started = time.monotonic()
    try:
        with led_to(wanted.host, address), MongoClient[dict[str, Any]](
            wanted.host, wanted.port, tls=True, directConnection=True, serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds, socketTimeoutMS=milliseconds, **options,
        ) as client:  # fmt: skip
            client.admin.command("ping")
    except OperationFailure as error:
        raise _refused(wanted, error) from None
    except ConfigurationError as error:
        raise Broken(f"the driver cannot work with {wanted.host}: {error}.") from None
    except PyMongoError:
        raise _closed(wanted) from None
    took = f"answers after {1000 * (time.monotonic() - started):.0f} ms"
    return f"{wanted.user} is known, and the database {took}" if wanted.user else f"not tried, but the database {took}"


def _refused(wanted: Wanted, error: OperationFailure) -> Broken:
    said = str((error.details or {}).get("errmsg", ""))
    if said in SENTENCES.values():
        return Broken(said, hint=wanted.guess)
    if error.code in _WRONG_USER:
        source = wanted.auth_source or wanted.database or "admin"
        return Broken(
            f'the database at {wanted.host} does not know the user "{wanted.user}" with this password in "{source}".',
            hint="Look at user, password (percent-encoded) and authSource; what the repository says is printed by "
            "cloudlunacy mongodb uri NAME --show-password.",
        )
    return Broken(f"the database at {wanted.host} refuses: {said or error.code}.")


@contextmanager
def led_to(host: str, address: str) -> Iterator[None]:
    """Let a name lead to an address in this process: the driver sends as SNI whatever it connects to."""
    ask = socket.getaddrinfo

    def answer(name: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - the signature of getaddrinfo
        return ask(address if name == host else name, *rest, **named)

    socket.getaddrinfo = answer  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.getaddrinfo = ask
