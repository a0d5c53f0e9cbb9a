"""What looks like a secret is named by its place and never quoted, and keeps nothing out of service."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.parse import parse_file
from tests.support.documents import agent, deployment, fleet, parsed, problems_of, route, state_of

CANARY = "canary-5f1c09"
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----\n"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
FORGE = "ghp_" + "a1" * 18
JWT = "eyJhbGciOiJFUzI1NiJ9" + ".eyJzdWIiOiJhIn0" + ".c2ln"
BASE = {"fleet.yaml": fleet(), "agents/vps-1.yaml": agent("vps-1")}
DEPLOYMENT, ROUTE = "deployments/shop/web.yaml", "routes/shop/web.yaml"


def said_of(path: str, content: bytes) -> list[str]:
    files = {**BASE, path: content}
    return [str(problem) for problem in problems_of(state_of(files), files)]


def of_deployment(**spec: Any) -> list[str]:
    return said_of(DEPLOYMENT, deployment("web", "vps-1", **spec))


def of_env(name: str, value: str) -> list[str]:
    return of_deployment(env={name: value})


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "PGPASSWORD", "password", "API_TOKEN", "CLIENT_SECRET", "SECRET_KEY_BASE", "STRIPE_API_KEY",
     "AWS_SECRET_ACCESS_KEY", "APIKEY", "SIGNING_KEY", "DB_PWD", "SMTP_PASS", "JWT_SECRET_2", "SSH_PASSPHRASE",
     "REGISTRY_CREDENTIALS"],
)  # fmt: skip
def test_a_variable_that_promises_a_secret_is_told(name: str) -> None:
    """The name alone is enough, and what stands behind it is not told."""
    (said,) = of_env(name, CANARY)
    assert said.startswith(f"{DEPLOYMENT}:1:")
    assert f"plain-secret: spec.env.{name} looks like a secret (by its name) and stands here in clear." in said
    assert "cloudlunacy secret seal shop/web KEY" in said
    assert CANARY not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, CANARY) for name in (
            "DB_PASSWORD_FILE", "TOKEN_URL", "TOKEN_TTL", "SECRET_NAME", "PUBLIC_KEY", "PARTITION_KEY", "MAX_TOKENS",
            "TOKENIZERS_PARALLELISM", "KEYBOARD", "PASSENGER", "PWD", "COMPASS", "MONKEY", "AUTHOR", "HEADER_COOKIES"
        )],
        ("DB_PASSWORD", ""),
        ("USE_TOKEN", "true"),
        ("DB_PASSWORD", "$DB_PASSWORD"),
        ("DB_PASSWORD", "${DB_PASSWORD:-}"),
        ("TLS_KEY", "/etc/tls/web.key"),
        ("SSH_KEY", "./id.pem"),
        ("TOKEN_ROTATION", "15m"),
        ("DATABASE", "postgres://user@db/app"),
        ("DATABASE", "postgres://user:$PASSWORD@db/app"),
        ("DATABASE", "postgres://user:{password}@db/app"),
        ("CERTIFICATE", "-----BEGIN CERTIFICATE-----"),
        ("TIME", "http://a/b:c@d"),
    ],
)  # fmt: skip
def test_what_only_sounds_alike_is_not_told(name: str, value: str) -> None:
    """Files, places, lengths of time, public keys and references are no secrets."""
    assert of_env(name, value) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (PEM, "a private key"),
        ("AGE-SECRET-KEY-1" + "Q" * 58, "a private key"),
        (AWS, "an access key of AWS"),
        (f"token {FORGE}", "a token"),
        (f"Bearer {JWT}", "a token"),
        ("glpat-" + "x" * 20, "a token"),
        (f"mongodb://app:{CANARY}@db:27017/shop", "a URL with a password"),
        (f"redis://:{CANARY}@cache", "a URL with a password"),
    ],
)
def test_a_value_with_the_form_of_a_secret_is_told(value: str, reason: str) -> None:
    """Wherever it stands: variable, argument, probe or header, under a name that says nothing."""
    deployed = of_deployment(
        env={"SETTING": value}, command=["run", value], healthCheck={"command": {"command": ["probe", value]}}
    )
    assert [reason in one for one in deployed] == [True] * 3
    assert not any(value[-12:] in one or CANARY in one for one in deployed)


@pytest.mark.parametrize(
    ("command", "index"),
    [(["run", f"--password={CANARY}"], 1), (["run", "--api-key", CANARY], 2), (["run", "-token", CANARY], 2)],
)
def test_an_argument_is_judged_by_its_flag(command: list[str], index: int) -> None:
    """Both ways of writing a flag's value are known."""
    (said,) = of_deployment(command=command)
    assert f"spec.command[{index}] looks like a secret" in said
    assert CANARY not in said


@pytest.mark.parametrize("command", [["run", "--password-file", CANARY], ["run", "--token", "--verbose"], ["run", "x"]])
def test_other_arguments_are_let_alone(command: list[str]) -> None:
    """A flag that names a file, or has no value, is no secret."""
    assert of_deployment(command=command) == []


def test_headers_of_a_route_are_judged() -> None:
    """Request headers, probes and matches by name; response headers are public and judged by form alone."""
    said = said_of(
        ROUTE,
        route(
            "web",
            headers=[{"name": "X-Api-Key", "value": CANARY}],
            healthCheck={"headers": {"Authorization": f"Basic {CANARY}"}},
            middlewares=[
                {"headers": {"request": {"X-Auth-Token": CANARY, "X-Team": "shop", "Cookie": ""},
                             "response": {"X-Token": CANARY, "X-Key": AWS}}},
            ],
        ),
    )  # fmt: skip
    assert [one.partition("plain-secret: ")[2].partition(" looks")[0] for one in said] == [
        "spec.headers[0].value",
        "spec.healthCheck.headers.Authorization",
        "spec.middlewares[0].headers.request.X-Auth-Token",
        "spec.middlewares[0].headers.response.X-Key",
    ]
    assert not any(CANARY in one or AWS in one for one in said)


def test_a_warning_keeps_nothing_out() -> None:
    """The object goes into service, and is not quarantined."""
    content = deployment("web", "vps-1", env={"DB_PASSWORD": CANARY})
    state = state_of({**BASE, DEPLOYMENT: content})
    assert parsed(DEPLOYMENT, content).key in state.served
    assert not list(state.quarantined)
    (finding,) = state.findings[DEPLOYMENT]
    assert finding.severity == "warning"


def test_nobody_is_told_without_end() -> None:
    """A file full of secrets is reported as one: the first twenty."""
    assert len(of_deployment(env={f"SECRET_{number}": CANARY for number in range(100)})) == 20


@pytest.mark.parametrize("value", ["eyJ-" * 8000, "://a:" * 6000, "-----BEGIN " * 2900, "A" * 32_000, "AKIA" * 8000])
def test_no_value_takes_long(value: str) -> None:
    """The largest values that try to make a pattern look twice stay within the test's time."""
    for _ in range(20):
        of_env("SETTING", value)


@pytest.mark.parametrize(
    "content",
    [
        f"kind: Secret, spec: {{sealed: {{password: {CANARY}}}}}",
        f"kind: Secret, spec: {{sealed: {{password: '-----BEGIN AGE ENCRYPTED FILE-----{CANARY}'}}}}",
        f'kind: Deployment, spec: {{type: container, image: a, env: {{A: "{CANARY}\\0"}}, agents: [a]}}',
        f'kind: Deployment, spec: {{type: container, image: a, command: ["{CANARY}\\0"], agents: [a]}}',
        f'kind: Route, spec: {{type: http, headers: [{{name: A, value: "{CANARY}\\n"}}]}}',
    ],
)
def test_a_value_of_the_wrong_form_is_not_quoted(content: str) -> None:
    """Who forgets to seal a value does not find it again in the output of CI."""
    kind = content.split()[1].rstrip(",")
    path = f"{kind.lower()}s/shop/web.yaml"
    found = parse_file(path, "b", f"{{apiVersion: cloudlunacy/v1, metadata: {{name: web}}, {content}}}".encode())
    assert found.findings
    assert CANARY not in str(found.findings)


def test_a_plain_value_in_a_secret_says_how_to_seal_it() -> None:
    """The hint is the command."""
    content = b"{apiVersion: cloudlunacy/v1, kind: Secret, metadata: {name: db}, spec: {sealed: {password: x}}}"
    (finding,) = parse_file("secrets/shop/db.yaml", "b", content).findings
    assert finding.message == "spec.sealed.password is no sealed value"
    assert "cloudlunacy secret seal shop/db KEY" in finding.hint
