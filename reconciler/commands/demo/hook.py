"""What the demo's remote runs after a push: tell the control plane to look now, as a git host does.

Run by ``hooks/post-receive``: ``python -m reconciler.commands.demo.hook URL SECRET_FILE CA_FILE``, the updated refs on
standard input. The form is GitHub's: JSON, and ``X-Hub-Signature-256`` over it. Standard library only, so that a push
takes no longer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

SECONDS: Final = 3.0


def signed_request(url: str, secret: bytes, updates: str) -> urllib.request.Request:
    """Make the request that tells of the updates, one ``old new ref`` a line."""
    refs = [line.split()[2] for line in updates.splitlines() if len(line.split()) == 3]
    body = json.dumps({"refs": refs}).encode()
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"}
    return urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - the demo wrote the URL


def main() -> int:
    """Send it. A control plane that is away sees the push at its next poll, so nothing is lost."""
    url, secret_file, ca_file = sys.argv[1:4]
    request = signed_request(url, Path(secret_file).read_bytes().strip(), sys.stdin.read())
    try:
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file))
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
        direct.open(request, timeout=SECONDS).close()
    except OSError as error:
        reason = getattr(error, "reason", error)
        sys.stderr.write(f"the control plane was not told ({reason}); it sees this push at its next poll\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
