"""Ping MongoDB through Traefik, by its name: ``python -m reconciler.commands.demo.ping PORT``.

Traefik finds the database by the server name (SNI), so the client must use the name. It is resolved here, because the
names of the demo exist in no DNS; with a line in /etc/hosts any client works.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

DOMAIN: Final = ".cloudlunacy.test"
HOST: Final = f"vps-1.mongodb{DOMAIN}"


def uri(port: int) -> str:
    """Return the address of the example's database, where Traefik's entry point has this port."""
    return f"mongodb://{HOST}:{port}/?tls=true&tlsAllowInvalidCertificates=true&directConnection=true"


def resolve_here() -> None:
    """Let the demo's names lead to this machine, in this process."""
    ask = socket.getaddrinfo

    def answer(host: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - the signature of getaddrinfo
        ours = isinstance(host, str) and host.endswith(DOMAIN)
        return ask("127.0.0.1" if ours else host, *rest, **named)

    socket.getaddrinfo = answer


def main() -> int:
    """Print what the server answers."""
    try:
        import pymongo  # noqa: PLC0415 - a machine without it has the demo all the same
        from pymongo.errors import PyMongoError  # noqa: PLC0415
    except ImportError:
        sys.stderr.write("pymongo is not installed: pip install pymongo\n")
        return 1
    resolve_here()
    try:
        with pymongo.MongoClient[dict[str, Any]](uri(int(sys.argv[1])), serverSelectionTimeoutMS=5000) as client:
            answer = client.admin.command("ping")
            version = client.server_info()["version"]
    except PyMongoError as error:
        sys.stderr.write(f"MongoDB does not answer: {error}\n")
        return 1
    sys.stdout.write(f"ping: {answer}, MongoDB {version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
