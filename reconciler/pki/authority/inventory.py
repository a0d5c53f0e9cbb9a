"""Every certificate that was issued, and what was revoked: ``<data>/keys/inventory.jsonl``, one event a line.

An issuance is on the disk (fsync) before anybody gets the certificate, so whatever exists is listed; a line without a
certificate, left by a crash, does no harm. A last line that cannot be read was being written when the power went: it is
dropped, because what it told of was never handed out. Any other damage is not guessed at.

What expired and decides nothing any more moves to ``inventory-<year>.jsonl``, which nothing here reads: it is for
people. Several processes may write: each appends under the lock of the authority, and first reads what others wrote.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, get_args

from cryptography import x509

from reconciler.errors import Broken
from reconciler.pki.authority.profiles import Kind, fingerprint
from reconciler.pki.authority.revocation import LIFETIME, REASONS, Reason
from reconciler.pki.private_files import create_private, refuse_if_open_to_others, write_private

KEEP: Final = dt.timedelta(days=1)
"""How long an expired certificate stays listed at least; a revoked one as long as a list of revocations lives."""
AUTHORITIES: Final[frozenset[Kind]] = frozenset({"root", "intermediate"})
"""Their issuances stay for ever."""
_KINDS: Final = frozenset(get_args(Kind))
_LEAST_TO_COMPACT: Final = 1000
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate. ``holder`` says whose it is: ``agent/vps-1``, ``server``, ``certificate/apps``."""

    serial: int
    kind: Kind
    holder: str
    names: tuple[str, ...]
    issuer: str
    """Key id of the issuer, hex."""
    sha256: str
    at: dt.datetime
    not_before: dt.datetime
    not_after: dt.datetime
    revoked_at: dt.datetime | None = None
    reason: Reason | None = None

    @classmethod
    def of(
        cls, certificate: x509.Certificate, *, kind: Kind, holder: str, names: tuple[str, ...], issuer: str,
        at: dt.datetime,
    ) -> Issued:  # fmt: skip
        """Describe a certificate."""
        return cls(
            serial=certificate.serial_number,
            kind=kind,
            holder=holder,
            names=names,
            issuer=issuer,
            sha256=fingerprint(certificate),
            at=at.replace(microsecond=0),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    def good(self, now: dt.datetime) -> bool:
        """Whether it is neither expired nor revoked."""
        return self.revoked_at is None and now <= self.not_after


@dataclass
class _Read:
    """What the file says, up to ``size``."""

    inode: int = 0
    size: int = 0
    issued: dict[int, Issued] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)


class Inventory:
    """The file and what it says. Not for two threads at once; the authority sees to that.

    Raises:
        Broken: when the file is open to others, damaged, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = _Read()
        self._look_at = _LEAST_TO_COMPACT
        self.refresh()

    def __iter__(self) -> Iterator[Issued]:
        return iter(self._read.issued.values())

    def __len__(self) -> int:
        return len(self._read.issued)

    def find(self, serial: int) -> Issued | None:
        """Return the certificate with this serial."""
        return self._read.issued.get(serial)

    def latest(self, holder: str) -> Issued | None:
        """Return the newest certificate of a holder, expired or revoked ones included."""
        serial = self._read.latest.get(holder)
        return None if serial is None else self._read.issued[serial]

    def counts(self, now: dt.datetime) -> Mapping[str, Mapping[str, int]]:
        """Return how many certificates of each kind are good, expired and revoked."""
        found: dict[str, Counter[str]] = {}
        for one in self:
            state = "revoked" if one.revoked_at is not None else "good" if one.good(now) else "expired"
            found.setdefault(one.kind, Counter())[state] += 1
        return found

    def record(self, issued: Issued) -> None:
        """Write down an issuance, durably. Call it before anybody gets the certificate."""
        self._append(_line_of(issued))

    def revoke(self, serial: int, reason: Reason, at: dt.datetime) -> None:
        """Write down a revocation, durably. The serial is one that is listed."""
        self._append(_revocation(serial, reason, at))

    def refresh(self) -> None:
        """Read what other processes wrote since."""
        try:
            with self._path.open("rb") as file:
                self._take(file.fileno())
        except FileNotFoundError:
            self._read = _Read()
        except OSError as error:
            raise self._unusable(error) from None

    def compact(self, now: dt.datetime) -> bool:
        """Move what expired to the archive once that is half of the list; say whether anything was moved."""
        if len(self) < self._look_at:
            return False
        last = set(self._read.latest.values())  # somebody may ask when a holder's certificate ran out
        keep = [one for one in self if one.serial in last or _matters(one, now)]
        if len(keep) * 2 > len(self):
            self._look_at = len(self) * 5 // 4
            return False
        kept = {one.serial for one in keep}
        try:
            self._archive([one for one in self if one.serial not in kept], now)
            write_private(self._path, _encode(line for one in keep for line in _lines_of(one)))
        except OSError as error:
            raise self._unusable(error) from None
        self.refresh()
        return True

    def _archive(self, old: Iterable[Issued], now: dt.datetime) -> None:
        # A crash before the list is replaced leaves them in both; the next time they stand in the archive twice.
        path = self._path.with_name(f"{self._path.stem}-{now.year}.jsonl")
        create_private(path, b"")
        with path.open("ab") as file:
            file.write(_encode(line for one in old for line in _lines_of(one)))
            file.flush()
            os.fsync(file.fileno())

    def _append(self, line: Mapping[str, Any]) -> None:
        # One line a write: of two lines, a crash could leave the second without the first.
        try:
            if not self._path.exists():
                create_private(self._path, b"")
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                self._take(descriptor)
                self._write(descriptor, _encode([line]))
                self._take(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unusable(error) from None

    def _write(self, descriptor: int, content: bytes) -> None:
        if os.fstat(descriptor).st_size != self._read.size:
            os.ftruncate(descriptor, self._read.size)  # the torn end of a line that never counted
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._read.size)
            raise

    def _take(self, descriptor: int) -> None:
        """Read from where we were; from the start when it is another file."""
        refuse_if_open_to_others(self._path)
        status = os.fstat(descriptor)
        if status.st_ino != self._read.inode or status.st_size < self._read.size:
            self._read = _Read(inode=status.st_ino)
        content = os.pread(descriptor, status.st_size - self._read.size, self._read.size)
        lines = content.split(b"\n")
        torn = lines.pop()
        for number, line in enumerate(lines):
            try:
                self._apply(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                if number == len(lines) - 1 and not torn:
                    return  # its pages reached the disk in part; the next one to write cuts it off
                text = f"{self._path} is damaged at byte {self._read.size}."
                raise Broken(text, hint="Restore it from a backup: it says what was revoked.") from None
            self._read.size += len(line) + 1

    def _apply(self, line: Mapping[str, Any]) -> None:
        serial = int(line["serial"], 16)
        if line["event"] == "revoked":
            if line["reason"] not in REASONS:
                raise ValueError(line["reason"])
            known = self._read.issued[serial]
            self._read.issued[serial] = replace(known, revoked_at=_time(line["at"]), reason=line["reason"])
            return
        issued = _issued_of(serial, line)
        self._read.issued[serial] = issued
        self._read.latest[issued.holder] = serial

    def _unusable(self, error: OSError) -> Broken:
        return Broken(f"{self._path} cannot be used: {error.strerror}.", hint="No certificate leaves unrecorded.")


def _matters(issued: Issued, now: dt.datetime) -> bool:
    if issued.kind in AUTHORITIES:
        return True
    return now < issued.not_after + (KEEP if issued.revoked_at is None else LIFETIME)


def _line_of(issued: Issued) -> Mapping[str, Any]:
    return {
        "event": "issued",
        "serial": f"{issued.serial:x}",
        "kind": issued.kind,
        "holder": issued.holder,
        "names": issued.names,
        "issuer": issued.issuer,
        "sha256": issued.sha256,
        "at": issued.at.strftime(_TIME),
        "notBefore": issued.not_before.strftime(_TIME),
        "notAfter": issued.not_after.strftime(_TIME),
    }


def _lines_of(issued: Issued) -> Iterator[Mapping[str, Any]]:
    yield _line_of(issued)
    if issued.revoked_at is not None:
        yield _revocation(issued.serial, issued.reason or "unspecified", issued.revoked_at)


def _revocation(serial: int, reason: Reason, at: dt.datetime) -> Mapping[str, Any]:
    return {"event": "revoked", "serial": f"{serial:x}", "at": at.strftime(_TIME), "reason": reason}


def _issued_of(serial: int, line: Mapping[str, Any]) -> Issued:
    if line["event"] != "issued" or line["kind"] not in _KINDS:
        raise ValueError("unknown event")
    return Issued(
        serial=serial,
        kind=line["kind"],
        holder=str(line["holder"]),
        names=tuple(str(name) for name in line["names"]),
        issuer=str(line["issuer"]),
        sha256=str(line["sha256"]),
        at=_time(line["at"]),
        not_before=_time(line["notBefore"]),
        not_after=_time(line["notAfter"]),
    )


def _encode(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def _time(text: str) -> dt.datetime:
    time = dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time
