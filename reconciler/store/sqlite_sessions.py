"""The part of the embedded engine that keeps sessions of people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from reconciler.store.engine import Database, Mode
from reconciler.store.sessions import LoginLink, Session
from reconciler.store.tables import sessions as rows


class SQLiteSessions:
    """A :class:`reconciler.store.sessions.SessionStore`, over ``outbox.db``."""

    _outbox: Database

    async def save_session(self, session: Session) -> None:
        await self._outbox.run(partial(rows.save, session=session), Mode.DURABLE)

    async def sessions(self) -> Sequence[Session]:
        return await self._outbox.run(rows.every)

    async def forget_session(self, session_id: str) -> None:
        await self._outbox.run(partial(rows.forget, session_id=session_id), Mode.DURABLE)

    async def add_login_link(self, link: LoginLink) -> None:
        await self._outbox.run(partial(rows.add_link, link=link), Mode.DURABLE)

    async def login_links(self) -> Sequence[LoginLink]:
        return await self._outbox.run(rows.links)

    async def use_login_link(self, link_id: str) -> bool:
        return await self._outbox.run(partial(rows.use_link, link_id=link_id), Mode.DURABLE)
