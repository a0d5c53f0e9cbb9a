"""What every answer for a browser says about itself: nothing foreign is loaded, framed, kept or told further."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content Security Policy 3. Neither script nor style stands in a page itself, so what an agent or a tenant named so
stays text even where a template forgot to escape it."""
SECURITY: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # not no-referrer: with that a browser sends its forms with "Origin: null" (Fetch, 3.2), which is what we refuse
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
PRIVATE: Final[Mapping[str, str]] = {**SECURITY, "Cache-Control": "no-store"}
"""For pages: who logs out leaves nothing behind in the cache."""
