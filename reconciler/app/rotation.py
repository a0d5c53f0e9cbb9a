"""Drives rotations (:mod:`reconciler.pki.rotation`): one look a second, each phase written down before it is acted on.

A look, for each rotation that is under way: do what belongs to its phase → find out who has what → decide → the next
phase, as long as one may be entered. Then it is told what agents are to believe by now; the loop publishes that. What
fails is tried again at the next look, and stops nobody.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from reconciler.pki import rotation_file
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Permitted
from reconciler.pki.keystore import KeyStore
from reconciler.pki.rotating import RotatedKeys
from reconciler.pki.rotation import (
    OF_THE_AUTHORITY,
    SUBJECTS,
    TOLD_TO_AGENTS,
    Facts,
    Go,
    Rotation,
    Stay,
    Subject,
    Times,
    begin,
    cancelled,
    decide,
    due,
    ended_by,
    enter,
)
from reconciler.pki.rotation_file import Kept, Waiting
from reconciler.store.protocols import Event, EventStore

log = get_logger(__name__)

Severity = Literal["info", "warning", "error"]
SECONDS: Final = 1.0
PAUSES: Final = (5.0, 60.0, 600.0)
"""After looks in a row that failed."""


class Fleet(Protocol):
    """What is known of those who verify: :class:`reconciler.app.verifiers.Verifiers`."""

    def permitted(self) -> Permitted | None:
        """Return what the authority has to be able to sign; None while that is not known yet."""
        ...

    def lacking(self, trust: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
        """Return the agents that have not applied this trust: those that are connected, and those that are not."""
        ...

    def fronts_behind(self, roots: str) -> frozenset[str]:
        """Return the fronts that have not loaded these roots and the certificates that go with them."""
        ...

    def secrets_wait(self, phase: str) -> str:
        """Return what a person has to do about sealed values before the age identity goes on, "" where nothing."""
        ...


class Rotations:
    """``on_change`` is called, in a thread, when keys or roots are others than before: files that tell of them follow.

    Raises:
        Broken: when the file of rotations is damaged.
    """

    def __init__(
        self,
        directory: Path,
        keys: KeyStore,
        authority: Authority,
        *,
        fleet: Fleet,
        events: EventStore,
        on_change: Callable[[], None],
        times: Times,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._authority = authority
        self._work = RotatedKeys(keys, authority)
        self._fleet = fleet
        self._events = events
        self._on_change = on_change
        self._times = times
        self._clock = clock
        self._turn = asyncio.Lock()
        self._notices: deque[Event] = deque(maxlen=1000)
        self._known = f"{authority.version()} {keys.version()}"
        self.kept = rotation_file.load(directory)
        self.trust: Mapping[str, Any] = self._present_trust()
        """What agents are to believe; the same object until it changes."""

    async def run(self) -> None:
        """Look for ever."""
        failures = 0
        while True:
            try:
                await self.look()
                failures = 0
            except (CloudLunacyError, OSError) as error:
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
                log.warning("rotations cannot go on", error=str(error), again_in=pause)
                await asyncio.sleep(pause)
            except Exception:  # a bug must not end the task
                log.exception("looking after rotations ended by a bug, trying again", again_in=PAUSES[1])
                await asyncio.sleep(PAUSES[1])
            await asyncio.sleep(SECONDS)

    async def begin(
        self, subject: Subject, *, tainted: bool = False, deadline: dt.timedelta | None = None, actor: str = ""
    ) -> Rotation:
        """Begin a rotation, or let one that is under way be urgent; what it brings about comes by itself.

        Raises:
            Refused: 409 ``rotation-under-way``.
            Broken: when that cannot be written down.
        """
        async with self._turn:
            known, now = self.kept.under_way, self._now()
            begun = begin(known, subject, now, tainted=tainted, deadline=deadline, actor=actor, times=self._times)
            await asyncio.to_thread(self._begin, begun)
        await self.look()
        return self.kept.under_way.get(subject, begun)

    async def cancel(self, subject: Subject, *, actor: str = "") -> Rotation:
        """Give a rotation up whose next key has not taken over.

        Raises:
            Refused: 404 ``no-such-rotation``, 409 ``too-late``.
            Broken: when files cannot be written; then it goes on.
        """
        async with self._turn:
            rotation = cancelled(self.kept.under_way, subject)
            await asyncio.to_thread(self._give_up, enter(rotation, "prepare", self._now()), actor)
        await self.look()
        return rotation

    async def look(self) -> None:
        """Bring every rotation as far as it may go.

        Raises:
            CloudLunacyError, OSError: what could not be done; the next look tries again.
        """
        async with self._turn:
            try:
                await asyncio.to_thread(self._begin_what_is_due)
                failed: CloudLunacyError | OSError | None = None
                for subject in list(self.kept.under_way):
                    try:
                        await self._go_on(subject)
                    except (CloudLunacyError, OSError) as error:  # the others go on
                        failed = failed or error
                await self._take_back()
                await asyncio.to_thread(self._take_note)  # also of what a command did
                if failed is not None:
                    raise failed
            finally:
                while self._notices:
                    await self._events.append(self._notices[0])
                    self._notices.popleft()

    # --- one rotation -----------------------------------------------------------------------------------------------

    async def _go_on(self, subject: Subject) -> None:
        while (rotation := self.kept.under_way.get(subject)) is not None:
            permitted = self._fleet.permitted()
            if rotation.phase == "prepare" and subject in OF_THE_AUTHORITY and permitted is None:
                return  # right after a start
            blocked = await asyncio.to_thread(self._work.work, rotation, permitted or Permitted(), self._now())
            await asyncio.to_thread(self._take_note)
            facts = await self._facts(rotation, blocked)
            verdict = decide(rotation, facts, self._now(), self._times)
            if isinstance(verdict, Stay):
                self._note_waiting(subject, verdict)
                return
            if verdict.phase == "activate" and subject in TOLD_TO_AGENTS:
                await asyncio.to_thread(self._leave_behind, subject, self._lacking())
            await asyncio.to_thread(self._leave, rotation, verdict)

    async def _facts(self, rotation: Rotation, blocked: str) -> Facts:
        subject, phase = rotation.subject, rotation.phase
        if phase not in ("distribute", "wait"):
            return Facts(blocked)
        if subject == "age":
            return Facts(await asyncio.to_thread(self._fleet.secrets_wait, phase))
        behind: frozenset[str] = frozenset()
        away, in_use_until = behind, None
        if subject == "desired" or (subject, phase) == ("root", "distribute"):
            behind, away = self._fleet.lacking(self.trust)
        if subject in OF_THE_AUTHORITY:
            behind |= self._fleet.fronts_behind(str(self.trust["bundle"]))
            in_use_until = await asyncio.to_thread(self._authority.former_in_use_until, self._now())
        return Facts(blocked, behind, away, in_use_until)

    def _begin(self, begun: Rotation) -> None:
        is_new = begun.subject not in self.kept.under_way
        ended = ended_by(begun, self.kept.under_way)
        if begun.tainted and begun.subject in OF_THE_AUTHORITY:
            for one in (begun.subject, *ended):  # a crash from here on, and the next ones are made again
                if (known := self.kept.under_way.get(one)) is not None:
                    self._enter(enter(known, "prepare", self._now()), "")
            self._work.give_up(begun)  # what lay beside a key that others know is known too
        for one in ended:
            self._forget(one)
            self._tell("RotationCancelled", "warning", one, f"An emergency of {begun.subject} takes over.", begun.actor)
        self._enter(begun, "begins" if is_new else "is urgent now")

    def _lacking(self) -> frozenset[str]:
        behind, away = self._fleet.lacking(self.trust)
        return behind | away

    async def _take_back(self) -> None:
        """Name no agent any more that came after all, or enrolled again."""
        if self.kept.left_behind and self._fleet.permitted() is not None:  # not right after a start
            left = self.kept.left_behind & self._lacking()
            if left != self.kept.left_behind:
                await asyncio.to_thread(self._save, replace(self.kept, left_behind=left))

    def _leave_behind(self, subject: Subject, lacking: frozenset[str]) -> None:
        """Remember who will not get to know the next key any more, for people who look."""
        if lacking - self.kept.left_behind:
            self._save(replace(self.kept, left_behind=self.kept.left_behind | lacking))
            names = ", ".join(Waiting.of(Stay("", who=tuple(sorted(lacking)))).who)
            text = f"{len(lacking)} agent(s) did not take the next key and may have to enrol again: {names}"
            self._tell("AgentsLeftBehind", "warning", subject, text)

    def _leave(self, rotation: Rotation, go: Go) -> None:
        subject, kept = rotation.subject, self.kept
        if go.phase == "wait":  # what belongs to activate is done
            told: tuple[Subject, ...] = ("root", "intermediate") if subject == "root" else (subject,)
            self.kept = replace(kept, signing_since={**kept.signing_since, **dict.fromkeys(told, self._now())})
        if go.phase is not None:
            self._enter(enter(rotation, go.phase, self._now()), "")
            return
        self._forget(subject)
        self._tell("RotationFinished", "info", subject, "The former key is forgotten.")

    def _give_up(self, rotation: Rotation, actor: str) -> None:
        self._enter(rotation, "")  # a crash from here on, and the next key is made again
        self._work.give_up(rotation)
        self._forget(rotation.subject)
        self._tell("RotationCancelled", "warning", rotation.subject, "It was given up; the former key stays.", actor)

    def _forget(self, subject: Subject) -> None:
        others = {one: known for one, known in self.kept.under_way.items() if one != subject}
        self._save(replace(self.kept, under_way=others, waiting=_without(self.kept.waiting, subject)))

    def _enter(self, rotation: Rotation, why: str) -> None:
        under_way = {**self.kept.under_way, rotation.subject: rotation}
        self._save(replace(self.kept, under_way=under_way, waiting=_without(self.kept.waiting, rotation.subject)))
        urgent = " The key counts as known to others." if rotation.tainted else ""
        text = f"The rotation {why}.{urgent}" if why else f"It is in the phase {rotation.phase} now."
        kind = "RotationBegun" if why else "RotationPhase"
        self._tell(kind, "warning" if urgent and why else "info", rotation.subject, text, rotation.actor)

    def _note_waiting(self, subject: Subject, stay: Stay) -> None:
        waiting = Waiting.of(stay)
        if self.kept.waiting.get(subject) == waiting:
            return
        former = self.kept.waiting.get(subject)
        self._save(replace(self.kept, waiting={**self.kept.waiting, subject: waiting}))
        if former is None or former.why != stay.why:
            who = f": {', '.join(waiting.who)}" if waiting.who else ""
            self._tell("RotationWaits", "info", subject, f"{stay.why}{who}")

    # --- all of them --------------------------------------------------------------------------------------------

    def _begin_what_is_due(self) -> None:
        now = self._now()
        if (seen := self.kept.seen_at(now)) != self.kept:
            self._save(seen)
        since = self.kept.signing_since
        unknown = {subject: now for subject in SUBJECTS if subject not in since}
        if unknown:
            self._save(replace(self.kept, signing_since={**since, **unknown}))
        made = {one: at for one, at in self.kept.signing_since.items() if self._is_ours(one)}
        subject = due(made, self.kept.under_way, now, self._times)
        if subject is not None:
            self._enter(begin(self.kept.under_way, subject, now, times=self._times), "begins, because the key is old")

    def _is_ours(self, subject: Subject) -> bool:
        """Whether no person is needed for it."""
        root = self._authority.pairs("root").get("current") if subject in OF_THE_AUTHORITY else None
        return subject not in OF_THE_AUTHORITY or (root is not None and root.complete)

    def _take_note(self) -> None:
        """Let files and agents follow what the keys have become."""
        version = f"{self._authority.version()} {self._keys.version()}"
        if version != self._known:
            self._on_change()
            self._known = version
        trust = self._present_trust()
        if trust != self.trust:
            self.trust = trust

    def _present_trust(self) -> Mapping[str, Any]:
        urgent = any(one.tainted for one in self.kept.under_way.values() if one.subject in OF_THE_AUTHORITY)
        return self._work.trust(self._times.rush if urgent else self._times.spread)

    def _save(self, kept: Kept) -> None:
        rotation_file.save(self._directory, kept)
        self.kept = kept

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)

    def _tell(self, kind: str, severity: Severity, subject: Subject, text: str, actor: str = "") -> None:
        log.info("rotation", subject=subject, what=kind, text=text)
        self._notices.append(Event(self._clock(), kind, severity, f"rotation/{subject}", text, actor=actor))


def _without(waiting: Mapping[Subject, Waiting], subject: Subject) -> dict[Subject, Waiting]:
    return {one: said for one, said in waiting.items() if one != subject}
