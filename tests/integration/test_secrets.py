"""Secrets leave no trace: logs, answers, metrics, the store, process arguments, the published file."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import seal
from tests.support import documents
from tests.support.fleet import Installation, installation, start_files, web
from tests.support.git_server import git_server
from tests.support.process_list import process_arguments
from tests.support.traefik import backends

GIT_PASSWORD = "canary-git-password-5f1c"
WEBHOOK_SECRET = "canary-webhook-secret-91ab"
HTPASSWD = "canaryuser:$2y$05$canarycanarycanarycanuXcanaryXcanaryXcanaryXcanaryXca"
READABLE = ("status", "revisions", "revisions/newest/plan", "objects", "state", "agents", "events")


def test_secrets_are_found_only_where_they_belong(tmp_path: Path) -> None:
    """Tokens, keys, passwords and sealed values appear in no log, answer, metric, database, argument or other file."""
    git_file, webhook_file = tmp_path / "git-token", tmp_path / "webhook"
    git_file.write_text(GIT_PASSWORD)
    webhook_file.write_text(WEBHOOK_SECRET)
    environment = {
        "CLOUDLUNACY_GIT_TOKEN_FILE": str(git_file),
        "CLOUDLUNACY_GIT_USERNAME": "git",
        "CLOUDLUNACY_WEBHOOK_SECRET_FILE": str(webhook_file),
    }
    with (
        backends("app") as (app,),
        git_server(tmp_path, username="git", password=GIT_PASSWORD) as server,
        installation(tmp_path / "one", start_files("web", port=app.port), start=False, environment=environment) as one,
    ):
        one.repo_url = server.url_of(one.repo.path)
        with process_arguments() as seen:
            one.options = ["--log-level", "DEBUG"]
            one.start()
            assert one.status_wait(one.repo.tip() or "")["state"] == "Converged"
            sealed = _sealed(one, HTPASSWD)
            protected = web("admin", app.port, middlewares=[{"basicAuth": {"secret": {"name": "users", "key": "all"}}}])
            assert not one.live({"secrets/shop/users.yaml": sealed, "routes/shop/admin.yaml": protected})["quarantined"]
            assert one.get("admin").status_code == 401
            token = one.token("vps-1")
            assert one.enrol("vps-1", token=token).returncode == 0
            one.run_agent("vps-1")
            one.wait_connected("vps-1")
            one.client.post("/webhooks/git", content=b"{}", headers={"X-Gitlab-Token": WEBHOOK_SECRET})
            one.client.post("/webhooks/git", content=b"{}", headers={"X-Gitlab-Token": WEBHOOK_SECRET + "x"})
            one.client.get("/api/v1/status", headers={"Authorization": f"Bearer {token}"})
            server.password = "changed"  # git's words about a refusal, with the URL in them
            before = one.metric("cloudlunacy_poll_failures_total")
            while one.metric("cloudlunacy_poll_failures_total") == before:
                one.client.get("/healthz")
            answers = "".join(one.client.get(f"/api/v1/{path}", headers=one.headers()).text for path in READABLE)
            answers += one.client.get("/metrics").text
        assert any("ls-remote" in arguments for arguments in seen), "git was never seen; then nothing was looked at"
        canaries = {
            "git password": GIT_PASSWORD,
            "git password in base64": base64.b64encode(f"git:{GIT_PASSWORD}".encode()).decode(),
            "webhook secret": WEBHOOK_SECRET,
            "enrolment secret": token.partition(".")[2],
            "sealed value": HTPASSWD.partition(":")[2],
            **_private_keys(one.data / "keys"),
        }
        one.stop()
        places = {
            "log": one.log(),
            "agent's log": one.agent_log("vps-1"),
            "API": answers,
            "arguments": "\n".join(seen),
            "store": _everything_in(one.data / "state.db"),
            "cache": _everything_in(one.data / "cache.db"),
            "remote": "".join(one.repo.show(path) for path in one.repo.files()),
            "mirror's configuration": (one.data / "mirror").joinpath("config").read_text()
            if (one.data / "mirror" / "config").exists() else "",
        }  # fmt: skip
        # the enrolment's token is an argument of the one command that a person runs with it
        allowed = {("arguments", "enrolment secret")}
        found = {
            (place, name)
            for place, text in places.items()
            for name, canary in canaries.items()
            if canary in text and (place, name) not in allowed
        }
        assert not found
        published = one.published.read_text()
        # what Traefik needs: it checks passwords with the one, and answers with the others. The fronts' own key is not
        # there, because no route here lets them prove themselves
        pairs = {name for name in canaries if name.startswith("key certificates/") and "__fronts" not in name}
        assert len(pairs) == 2
        belong = {"sealed value", "key default-certificate.pem", *pairs}
        assert {name for name, canary in canaries.items() if canary in published} == belong
        assert one.published.stat().st_mode & 0o007 == 0
        for path in one.data.rglob("*"):
            assert path.stat().st_mode & 0o077 == 0 or one.data.stat().st_mode & 0o077 == 0, path


def _sealed(one: Installation, value: str) -> bytes:
    text = seal(value, [KeyStore(one.data / "keys").recipient()])
    return json.dumps(json.loads(documents.secret("users", "all")) | {"spec": {"sealed": {"all": text}}}).encode()


def _private_keys(folder: Path) -> dict[str, str]:
    """A line of each private key, as it would stand in whatever it leaked into."""
    found = {}
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if "PRIVATE KEY" in text:
            body = text.partition("PRIVATE KEY-----")[2].split("-----")[0].strip().replace("\\n", "\n")
            found[f"key {path.relative_to(folder)}"] = body.splitlines()[0][20:60]
        elif "AGE-SECRET-KEY-" in text:
            found[f"key {path.relative_to(folder)}"] = text[text.index("AGE-SECRET-KEY-") + 15 :].split()[0]
    assert found, "no private key was found; then this test looks for nothing"
    return found


def _everything_in(path: Path) -> str:
    """Every value of every table, as text."""
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for table in tables for row in database.execute(f"SELECT * FROM {table}")]
    return "\n".join(
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for row in rows for value in row
    )
