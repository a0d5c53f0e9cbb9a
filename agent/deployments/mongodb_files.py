"""What the agent keeps of each database, beside the data itself: ``<data>/mongodb/<team>/<name>/``, mode 0700.

```
record.json    what it runs in, and what its data is known to be; the password of the agent's user, sealed
tls/           certificate with key, and roots, as mongod reads them; the container sees this directory
socket/        mongod's Unix socket; the container sees this directory
backups/       archives (agent.deployments.mongodb_archive)
```

The files in ``tls`` are readable for everybody who sees the directory, for nobody knows as whom mongod runs inside; on
the machine itself the directories above are closed to all others.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.deployments.mongodb_workload import CERTIFICATE, ROOTS, Runtime
from agent.deployments.workload import Key
from agent.keys import write_aside, write_private
from agent.sealing import BadSeal, Sealer

log = logging.getLogger(__name__)

FOLDER: Final = "mongodb"
BACKUPS: Final = "backups"
_RECORD: Final = "record.json"
_PASSWORD_BYTES: Final = 32
_RUNTIMES: Final[Mapping[str, Runtime]] = {"container": "container", "process": "process"}


@dataclass(frozen=True, slots=True)
class Record:
    """``version`` and ``image`` are of the last one that was let to the data, ``feature_version`` is the data's own.

    As long as nobody was in the data all but the password may become something else: there is nothing to lose.
    """

    runtime: Runtime
    version: str
    image: str | None
    password: str = field(repr=False)
    feature_version: str = ""
    """Empty as long as the agent has not been in it; nobody else is before."""
    ran: str = ""
    """Version of the mongod that answered last, to the patch level."""
    address: str = ""
    port: int = 0
    """Where that was."""

    @property
    def begun(self) -> bool:
        """There is data, and it is known of which version."""
        return bool(self.feature_version)


def new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


class DatabaseFiles:
    """All methods block; those that write raise OSError."""

    def __init__(self, data: Path, sealer: Sealer) -> None:
        self._folder = data.absolute() / FOLDER
        self._sealer = sealer

    def home(self, key: Key) -> Path:
        return self._folder / key.team / key.name

    def load(self) -> dict[Key, Record]:
        """Return everything that can be read."""
        found = {}
        for path in sorted(self._folder.glob(f"*/*/{_RECORD}")):
            key = Key(path.parent.parent.name, path.parent.name)
            try:
                found[key] = self._read(key, json.loads(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError, BadSeal) as error:
                log.warning("what was kept of the database %s cannot be read: %s", key, error)
        return found

    def save(self, key: Key, record: Record) -> None:
        home = self.home(key)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for above in (home, home.parent, self._folder):
            above.chmod(0o700)
        for name, mode in (("tls", 0o755), ("socket", 0o777)):  # mongod is here, whoever it runs as
            (home / name).mkdir(exist_ok=True)
            (home / name).chmod(mode)  # whatever the umask of the agent, which is 077 under systemd
        write_private(home / _RECORD, json.dumps(self._write(key, record)).encode())

    def forget(self, key: Key) -> None:
        """Forget a database whose data is gone. Backups stay."""
        home = self.home(key)
        (home / _RECORD).unlink(missing_ok=True)
        for name in ("tls", "socket"):
            shutil.rmtree(home / name, ignore_errors=True)
        for folder in (home / BACKUPS, home):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def put_certificate(self, key: Key, held: Path) -> bool:
        """Copy what ``held`` has to where mongod reads it; True when something is different."""
        tls = self.home(key) / "tls"
        changed = False
        for name in (ROOTS, CERTIFICATE):
            content, target = (held / name).read_bytes(), tls / name
            if target.is_file() and target.read_bytes() == content:
                continue
            aside = write_aside(target, content)
            aside.chmod(0o644)
            aside.replace(target)
            changed = True
        return changed

    def roots(self, key: Key) -> Path:
        return self.home(key) / "tls" / ROOTS

    def socket(self, key: Key, name: str) -> Path:
        return self.home(key) / "socket" / name

    def _write(self, key: Key, record: Record) -> dict[str, Any]:
        sealed = self._sealer.seal(record.password.encode(), f"mongodb {key}")
        return {
            "runtime": record.runtime,
            "version": record.version,
            "image": record.image,
            "featureVersion": record.feature_version,
            "ran": record.ran,
            "address": record.address,
            "port": record.port,
            "password": base64.b64encode(sealed).decode(),
        }

    def _read(self, key: Key, found: Mapping[str, Any]) -> Record:
        password = self._sealer.open(base64.b64decode(found["password"]), f"mongodb {key}")
        image = found["image"]
        return Record(
            runtime=_RUNTIMES[found["runtime"]],
            version=str(found["version"]),
            image=None if image is None else str(image),
            password=password.decode(),
            feature_version=str(found["featureVersion"]),
            ran=str(found["ran"]),
            address=str(found.get("address", "")),
            port=int(found.get("port", 0)),
        )
