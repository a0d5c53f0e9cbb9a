"""Fetches the release that the control plane offers, over TLS that the pinned authority verifies; checks its digest."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Final

import httpx
from pydantic import ValidationError

from agent.credentials import AgentFile
from agent.installing.plan import Cannot
from agent.pinning import context_for
from schemas.release import RELEASE_PATH, Release

SECONDS: Final = 60.0
MOST: Final = 64 * 1024 * 1024


def fetch(file: AgentFile, into: Path, *, transport: httpx.BaseTransport | None = None) -> Path:
    """Put the wheel that the control plane of this agent offers into a directory; return its path. Raises Cannot."""
    verify = True if file.ca is None else context_for(file.ca)
    try:
        with httpx.Client(
            base_url=file.server, verify=verify, timeout=SECONDS, trust_env=False, transport=transport
        ) as client:
            offered = Release.model_validate_json(_get(client, RELEASE_PATH))
            content = _get(client, f"/install/{offered.wheel}")
    except httpx.HTTPError as error:
        raise Cannot(f"the control plane at {file.server} cannot be reached: {error}.") from None
    except ValidationError:
        raise Cannot(f"the control plane at {file.server} offers no release; give one with --wheel.") from None
    if not hmac.compare_digest(hashlib.sha256(content).hexdigest(), offered.sha256):
        raise Cannot("what came is not the release that the control plane names; nothing was changed.")
    path = into / offered.wheel
    path.write_bytes(content)
    return path


def _get(client: httpx.Client, path: str) -> bytes:
    with client.stream("GET", path) as answer:
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise Cannot(f"the control plane at {client.base_url} offers no release; give one with --wheel.")
        answer.raise_for_status()
        content = b""
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > MOST:
                raise Cannot("what the control plane sends is too large for a release; nothing was changed.")
        return content
