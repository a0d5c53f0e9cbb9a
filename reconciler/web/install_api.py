"""Routes for machines that become agents: the script, and the program itself. Nobody has to prove who they are for it.

``GET /install.sh``                200 the script, see ``templates/install/install.sh``
``GET /install/release.json``      200 :class:`Release`
``GET /install/constraints.txt``   200 versions for pip
``GET /install/{wheel}``           200 the wheel, 404
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import CloudLunacyError, Refused
from reconciler.observability.logs import get_logger
from reconciler.web.bodies import json_answer
from reconciler.web.endpoint import Endpoint
from schemas.release import CONSTRAINTS_PATH, RELEASE_PATH, SCRIPT_PATH, WHEEL_PATH, Release

log = get_logger(__name__)


class Offered(Protocol):
    """:class:`reconciler.app.own_wheel.OwnWheel`."""

    @property
    def release(self) -> Release: ...
    @property
    def content(self) -> bytes: ...
    @property
    def constraints(self) -> str: ...


class InstallApi:
    """``make`` makes the wheel; it is called once, when somebody first asks. ``script`` is the template's text."""

    def __init__(self, make: Callable[[], Offered], script: Callable[[], str]) -> None:
        self._make = make
        self._script = script
        self._lock = asyncio.Lock()
        self._offered: Offered | None = None

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", SCRIPT_PATH, "Script that makes a machine an agent", self.script),
            Endpoint("GET", RELEASE_PATH, "The program of this version", self.release, response=Release),
            Endpoint("GET", CONSTRAINTS_PATH, "Versions of what it needs, for pip", self.constraints),
            Endpoint("GET", WHEEL_PATH, "The program as a wheel", self.wheel),
        )

    async def script(self, _: Request) -> Response:
        """The script, which knows the digest of the wheel: who trusts the one may take the other from anywhere."""
        offered = await self._ready()
        release, text = offered.release, self._script()
        for mark, value in (
            ("@VERSION@", release.version), ("@WHEEL@", release.wheel), ("@SHA256@", release.sha256),
            ("@CONSTRAINTS@", offered.constraints.rstrip()),
        ):  # fmt: skip
            text = text.replace(mark, value)
        return Response(text, headers={"Cache-Control": "no-store"}, media_type="text/x-shellscript")

    async def release(self, _: Request) -> Response:
        """What there is."""
        return json_answer((await self._ready()).release)

    async def constraints(self, _: Request) -> Response:
        """The versions that run here."""
        return Response((await self._ready()).constraints, media_type="text/plain")

    async def wheel(self, request: Request) -> Response:
        """The file."""
        offered = await self._ready()
        if request.path_params["wheel"] != offered.release.wheel:
            raise Refused(f"here is only {offered.release.wheel}.", status=404, code="unknown-release")
        return Response(offered.content, media_type="application/octet-stream")

    async def _ready(self) -> Offered:
        async with self._lock:
            if self._offered is None:
                try:
                    self._offered = await asyncio.to_thread(self._make)
                except (CloudLunacyError, OSError) as error:
                    log.warning("no release can be offered to agents", error=str(error))
                    text = "this control plane cannot make a release of itself; its log says why."
                    raise Refused(text, status=404, code="no-release") from None
            return self._offered
