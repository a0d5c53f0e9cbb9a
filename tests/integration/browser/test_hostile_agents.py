"""What agents say, in a real browser, where each word of it is an attack (docs/threats.md, 18): it stays text.

The pages are served from memory: no agent of the demo could be made to say all of this.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Dialog, expect
from starlette.applications import Starlette

from reconciler.web.deployment_api import DeploymentApi
from reconciler.web.endpoint import routes_of
from reconciler.web.limits import Limits
from schemas.observation import DeploymentObservation
from schemas.session import Report
from tests.support.browser import WIDTHS, window
from tests.support.fleet_pages import ORDERS, WEB, FleetPages, observed, serving
from tests.support.payloads import PAYLOADS
from tests.support.tokens import NOW

SEEN = ("<script>window.owned=1;alert(1)</script>", "{{7*7}}${7*7}{% raw %}", "\\u202egpj.exe\\u2066")
"""As people read them."""
PAGES = (
    "/agents", "/agents/vps-1", "/agents/new/vps-1", "/deployments", "/deployments/shop/web",
    "/deployments/shop/web/logs", "/databases", "/databases/shop/orders", "/databases/shop/orders/backups",
)  # fmt: skip


def said(text: str) -> dict[str, object]:
    """A result of an item, full of it."""
    return {"id": f"Deployment/shop/{text}"[:256], "state": "Failed", "reason": text[:64], "message": text}


def hostile(pages: FleetPages) -> None:
    """Have vps-1 say all of it, wherever an agent may say something."""
    own = [{**said(text), "id": str(key)} for text, key in zip(PAYLOADS, (WEB, ORDERS), strict=False)]
    report = Report.model_validate(
        {"sequence": 1, "generation": 1, "outcome": "failed", "message": PAYLOADS[0],
         "items": [*own, *map(said, PAYLOADS)]}
    )  # fmt: skip
    pages.control.seen = {
        "vps-1": observed(
            "vps-1",
            *(item.model_dump() for item in report.items),
            version=PAYLOADS[1][:64],
            message=report.message,
            outcome="failed",
            metrics={text[:64]: 1.0 for text in PAYLOADS},
        )
    }
    pages.control.present = frozenset({"vps-1"})
    for key in (WEB, ORDERS):
        pages.told["vps-1", key] = DeploymentObservation(
            team=key.team, name=key.name, health="unhealthy", step=PAYLOADS[0][:64]
        )
    text = "\n".join(PAYLOADS) + "\n"
    pages.talking.says = {"logs": [text], "backups": [text], "restart": [text], "backup": [text]}
    pages.talking.fails = {"restart": PAYLOADS[0][:64]}


@contextmanager
def served(data: Path) -> Iterator[tuple[FleetPages, str]]:
    """Serve the pages from a thread of their own, since Playwright has this one's loop."""
    ready, stop = threading.Event(), asyncio.Event()
    held: dict[str, FleetPages] = {}
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        async with serving(data, origin) as pages:
            hostile(pages)
            api = DeploymentApi(
                control=pages.control, commands=pages.commands, authenticator=pages.door, seen=pages.seen,
                clock=lambda: pages.one.now,
            )  # fmt: skip
            routes = routes_of([*api.endpoints(), *pages.endpoints])
            app = Limits(Starlette(routes=routes, exception_handlers=dict(pages.site.handlers())))
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            held["pages"] = pages
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()
            server.should_exit = server.force_exit = True
            await task

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="pages")
    thread.start()
    try:
        assert ready.wait(60)
        yield held["pages"], origin
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(60)
        listener.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FleetPages, str]]:
    with served(tmp_path_factory.mktemp("hostile")) as found:
        yield found


@pytest.mark.parametrize("width", WIDTHS)
def test_what_agents_say_stays_text(world: tuple[FleetPages, str], browser: Browser, width: int) -> None:
    """No dialog, no script of theirs, nothing asked of anybody, and the words can be read as they were said."""
    pages, origin = world
    dialogs: list[str] = []

    def note(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    with window(browser, origin, width=width, extra_http_headers=pages.one.bearer("admin", made=NOW)) as one:
        one.allowed.add("/api/v1/stream")  # here is none
        one.page.on("dialog", note)
        for path in PAGES:
            page = one.open(path)
            if path.endswith("/logs"):
                expect(page.locator("#log-state")).to_contain_text("Not following since")  # it has ended
            text = page.locator("main").inner_text()
            if path in ("/agents/vps-1", "/deployments/shop/web/logs", "/databases/shop/orders/backups"):
                for words in SEEN:
                    assert words in text, (path, words)
            assert page.evaluate("window.owned") is None, path
            assert page.locator("main img, main iframe, main script").count() == 0, path
            assert page.locator("main a[href^='javascript']").count() == 0, path
            assert "\u202e" not in text, path
            assert page.evaluate("window.__violations") == [], path
            one.check_width()
    assert (dialogs, one.complaints) == ([], [])
