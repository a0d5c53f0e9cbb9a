"""What a person does with the dashboard from end to end, in a real browser, on the running demo."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Window
from tests.support.demo import RunningDemo
from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.visitors import Site
from tests.support.waiting import wait_for

LONG: Final = 90_000
HOST: Final = "journey.app.cloudlunacy.test"
FILE: Final = "routes/shop/journey.yaml"
SYSTEMD: Final = Path("/run/systemd/system")
DRY_RUN: Final = 'sudo() { "$@"; }\n%s --dry-run\n'
"""``sudo`` need not be on a machine whose user is root."""


def front(demo: RunningDemo, entry_point: str = "web") -> int:
    """Where the demo's Traefik listens."""
    return int(json.loads((demo.directory / "demo.json").read_text(encoding="utf-8"))["front"][entry_point])


def status_at(demo: RunningDemo, host: str, path: str = "/") -> int:
    """Ask Traefik as a visitor of the host would."""
    url = f"http://127.0.0.1:{front(demo)}{path}"
    return httpx.get(url, headers={"Host": host}, timeout=10).status_code


def press(page: Page, role: str, name: str) -> None:
    """Press a button or follow a link by the keyboard, and wait for the page that comes."""
    one = page.get_by_role(role, name=re.compile(rf"^{re.escape(name)}( ?:|$)"))  # type: ignore[arg-type]
    one.focus()
    expect(one).to_be_focused()
    with page.expect_navigation(wait_until="load"):
        page.keyboard.press("Enter")


def is_converged(page: Page) -> None:
    """The page of a revision comes to it by itself."""
    page.evaluate("window.__same = true")
    expect(page.locator("#standing")).to_contain_text("Converged", timeout=LONG)
    assert page.evaluate("window.__same"), "the page was loaded anew"


def test_the_link_on_the_demos_screen_lets_one_person_in(site: Site) -> None:
    """As administrator, once; the second time it says why not, and what to do."""
    found = re.search(r"https://\S+/login/link\?key=\S+", site.demo.said)
    assert found is not None, site.demo.said
    link = urlsplit(found[0])
    assert f"{link.scheme}://{link.netloc}" == site.origin
    with site.stranger() as window:
        page = window.open(f"{link.path}?{link.query}")
        expect(page.get_by_role("heading", name="Log in as admin")).to_be_visible()
        press(page, "button", "Log in")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        window.check()
        cookies = page.context.cookies()
        (session,) = [one for one in cookies if one["name"] == "__Host-cloudlunacy"]
        assert (session["httpOnly"], session["secure"], session["sameSite"], session["path"]) == (
            True,
            True,
            "Lax",
            "/",
        )
    with site.stranger() as window:
        window.allowed.add(link.path)
        page = window.open(f"{link.path}?{link.query}")
        expect(page.get_by_role("button", name="Log in")).to_have_count(0)
        expect(page.locator("main")).to_contain_text("cloudlunacy login")
        assert page.context.cookies() == []


@pytest.fixture
def journey(site: Site) -> Iterator[str]:
    """No route of that name is left behind."""
    yield HOST
    site.demo.git("pull", "--quiet", "--rebase")
    if (site.demo.work / FILE).exists():
        site.demo.push("As it was", {FILE: None})


def test_a_route_comes_by_a_form_and_goes_by_rolling_back(site: Site, journey: str) -> None:
    """Form, preview, commit, and its page goes live by itself: the URL answers. Rolled back, the URL is 404 again."""
    with site.member("administrator") as window:
        page = window.open("/traffic")
        press(page, "link", "New route")
        page.get_by_label("Team").select_option("shop")
        page.get_by_label("Name", exact=True).fill("journey")
        page.get_by_label("TLS").select_option("none")
        page.locator("#deployment-1").fill("web")
        press(page, "button", "Check")
        expect(page.get_by_text("new host")).to_be_visible()
        expect(page.locator("main")).to_contain_text(journey)
        window.check()
        assert status_at(site.demo, journey) == 404
        press(page, "button", "Commit")
        assert "/revisions/" in page.url
        is_converged(page)
        assert status_at(site.demo, journey) == 200
        window.check()
        roll_back(window, site)
        assert status_at(site.demo, journey) == 404
    site.demo.git("pull", "--quiet", "--rebase")
    assert set(site.demo.git("log", "-2", "--format=%an").splitlines()) == {"ann"}
    assert not (site.demo.work / FILE).exists()


def roll_back(window: Window, site: Site) -> None:
    """Take back the revision that is open; nothing happens before the preview is confirmed."""
    page, before = window.page, site.ask("/status")["revision"]
    press(page, "link", "Roll back …")
    expect(page.get_by_role("heading", name="What this would do")).to_be_visible()
    expect(page.locator("main")).to_contain_text("turns 404")
    assert site.ask("/status")["revision"] == before
    window.check()
    press(page, "button", "Roll back")
    expect(page.locator(".notice")).to_contain_text("Committed as")
    assert not page.url.endswith(before)
    is_converged(page)


def test_a_held_deletion_goes_on_when_a_person_approves(site: Site) -> None:
    """The open overview says by itself what needs somebody, and leads there; a key lets that plan through."""
    demo = site.demo
    demo.git("pull", "--quiet", "--rebase")
    before = demo.git("rev-parse", "HEAD")
    gone = [str(path.relative_to(demo.work)) for path in (demo.work / "routes").glob("*/*.yaml")]
    with site.member("operator") as window:
        page = window.open("/")
        expect(page.locator("#live")).to_have_text("Live", timeout=LONG)
        demo.push("Delete every route", dict.fromkeys(gone))
        try:
            expect(page.get_by_role("link", name="Look and approve")).to_be_visible(timeout=LONG)
            assert status_at(demo, "web.app.cloudlunacy.test") == 200
            window.check()
            press(page, "link", "Look and approve")
            expect(page.get_by_role("heading", name="It waits for a person")).to_be_visible()
            expect(page.locator("#plan").get_by_text("removed").first).to_be_visible()
            window.check()
            press(page, "button", "Approve this plan")
            expect(page.get_by_text("Approved. It goes on at once.")).to_be_visible()
            is_converged(page)
            assert status_at(demo, "web.app.cloudlunacy.test") == 404
            window.check()
        finally:
            demo.git("pull", "--quiet", "--rebase")
            demo.git("checkout", "--quiet", before, "--", ".")
            demo.git("commit", "--quiet", "--all", "--message", "As it was")
            demo.git("push", "--quiet")
    wait_for(lambda: status_at(demo, "web.app.cloudlunacy.test") == 200, 90, what="the routes are back")


def test_lines_of_a_log_come_as_they_are_written(site: Site) -> None:
    """What a visitor asks shows up on the open page."""
    with site.member("operator") as window:
        page = window.open("/deployments/shop/web")
        press(page, "link", "Logs")
        expect(page.locator("#log-state")).to_contain_text("Following", timeout=LONG)
        for path in ("/first-of-two", "/second-of-two"):
            assert status_at(site.demo, "web.app.cloudlunacy.test", path) == 200
            expect(page.locator("#log .line").filter(has_text=path)).not_to_have_count(0, timeout=LONG)
        window.check()


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Agents that a test begins; they end with it."""
    begun: list[subprocess.Popen[bytes]] = []
    yield begun
    for process in begun:
        process.terminate()
        process.wait(30)


def test_an_agent_enrols_by_the_command_that_is_shown(
    site: Site, tmp_path: Path, newcomer: list[subprocess.Popen[bytes]]
) -> None:
    """The line of the page works as it stands there, and so does the command for machines without systemd. The page
    says that the agent is enrolled, then that it is here, and leads there. The token is shown once.
    """
    data = tmp_path / "agent"
    environment = {**os.environ, "CLOUDLUNACY_CA_FILE": ""}
    with site.visit() as window:
        page = window.open("/agents/new")
        page.get_by_label("Name of the agent").fill("vps-9")
        window.submit("Make the line")
        line = page.locator("#line").inner_text()
        assert re.search(
            r"curl .* --pinnedpubkey '?sha256//.*/install\.sh\).*--ca-sha256 [0-9a-f]{64} --name vps-9$", line
        )
        token = page.locator("#token").text_content() or ""
        assert token in line
        expect(page.locator("#joined")).to_contain_text("Nobody has enrolled as vps-9 yet.")
        window.check()
        try_line(line, tmp_path)
        words = shlex.split((page.locator("#enrol").text_content() or "").replace("--data DIR", ""))
        command = [sys.executable, "-m", "reconciler", *words[1:], "--data", str(data), "--address", "127.0.0.1"]
        subprocess.run(command, input=token.encode(), check=True, env=environment, capture_output=True, timeout=120)
        expect(page.locator("#joined")).to_contain_text("waiting for its first heartbeat", timeout=LONG)
        run = [sys.executable, "-m", "reconciler", "agent", "run", "--data", str(data), "--engine", "off"]
        newcomer.append(
            subprocess.Popen(tied(run), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        expect(page.locator("#joined")).to_contain_text("vps-9 is here", timeout=LONG)
        page.get_by_role("link", name="To vps-9").click()
        expect(page.get_by_role("heading", name="vps-9")).to_be_visible()
        assert token not in page.content()
        window.check()
        lock_out(site, window.page)


def try_line(line: str, folder: Path) -> None:
    """Run the line in a shell, where it says each step and does none; the token is good afterwards.

    Where there is no systemd it comes as far as to say so, and what to do instead, which is what the page says too.
    """
    require("curl")
    home = {**os.environ, "HOME": str(folder)}
    tried = subprocess.run(
        ["bash", "-c", DRY_RUN % line], capture_output=True, text=True, timeout=120, env=home, check=False
    )
    if SYSTEMD.exists():
        assert tried.returncode == 0, tried.stderr
        assert "vps-9" in tried.stdout
    else:
        assert "this machine has no systemd" in tried.stderr
        assert "cloudlunacy agent enrol, cloudlunacy agent run" in tried.stderr


def lock_out(site: Site, page: Page) -> None:
    """Revoke vps-9 on its page, by the keyboard alone."""
    page.get_by_text("Revoke its key…").press("Enter")
    page.get_by_label("Type vps-9 to confirm").fill("vps-9")
    page.get_by_label("Type vps-9 to confirm").press("Enter")
    expect(page.locator(".notice")).to_contain_text("vps-9 is locked out", timeout=LONG)
    wait_for(lambda: "vps-9" not in str(site.ask("/agents")), 90, what="vps-9 gone")
