"""Channels by Apprise (https://github.com/caronc/apprise): chats, pagers, mail. Their URLs are secrets.

Apprise speaks to more than other machines: to the desktop and the log of this one, and for some services it reads
files that the URL names. Who may seal a secret may not do that here, so services are listed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from pydantic import SecretStr

from reconciler.errors import Rejected, Transient

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 15.0
SERVICES: Final = frozenset(
    (
        *("apprises", "bark", "barks", "betterstack", "chanify", "dingtalk", "discord", "feishu", "flock", "gchat"),
        *("goalerts", "gotify", "gotifys", "guilded", "hassio", "hassios", "humhubs", "ilert", "incidentio", "jsons"),
        *("lark", "line", "mailgun", "mailto", "mailtos", "mastodons", "matrix", "matrixs", "mmost", "mmosts", "msg91"),
        *("nctalks", "notificos", "ntfy", "ntfys", "o365", "opsgenie", "pagerduty", "pagertree"),
        *("postmark", "pover", "prowl", "pushdeers", "revolt", "rocket", "rockets", "sendgrid", "signal", "signals"),
        *("signl4", "slack", "smtp2go", "sns", "sparkpost", "spike", "splunk", "squadcast", "synologys", "tgram"),
        *("threema", "twilio", "victorops", "webex", "wecombot", "workflow", "workflows", "wxteams", "zulip"),
    )
)
"""The schemes that may stand in front of ``://``."""
FILES: Final = frozenset(
    ("keyfile", "pgpkey", "pgp", "pgppub", "pgpprv", "cert", "key_file", "attach", "template", "file_url")
)
"""Parameters by which a service would read a file of this machine, and send it to whoever wrote the URL."""
_HINT: Final = "docs/notifications.md says which services there are; seal another URL."


def service_of(url: SecretStr) -> str:
    """Return the scheme of a channel's URL. No message repeats anything of it but that.

    Raises:
        Rejected: it is no URL of a service that is allowed (``ChannelRefused``).
    """
    text = url.get_secret_value().strip()
    scheme = text.partition("://")[0].lower()
    if "://" not in text or "\n" in text:
        raise Rejected("The secret holds no URL of Apprise, such as slack://….", reason="ChannelRefused", hint=_HINT)
    if scheme not in SERVICES:
        shown = scheme if scheme.isalnum() and len(scheme) <= 20 else "…"
        raise Rejected(f"{shown}:// is none of the services that may be used.", reason="ChannelRefused", hint=_HINT)
    if not FILES.isdisjoint(_parameters(text)):
        text = f"The {scheme}:// URL has a parameter that would read a file of this machine."
        raise Rejected(text, reason="ChannelRefused", hint=_HINT)
    return scheme


def _parameters(url: str) -> Iterator[str]:
    """Yield all that may be the name of a parameter: Apprise takes ``;`` for ``&``, and knows no fragment."""
    for part in re.split("[?&;#]", url):
        name, before = part.partition("=")[0], ""
        while name != before:
            name, before = unquote(name), name
        yield name.lower().strip().lstrip("+-: ")


async def send(url: SecretStr, title: str, body: str) -> None:
    """Tell a channel; Apprise blocks, so it does it in a thread.

    Raises:
        Rejected: the URL cannot be used.
        Transient: the service did not take it.
    """
    scheme = service_of(url)
    if not await asyncio.to_thread(_notify, url, title, body):
        raise Transient(f"The service behind {scheme}:// did not take the message.", reason="ChannelUnavailable")


def _notify(url: SecretStr, title: str, body: str) -> bool:
    import apprise  # noqa: PLC0415 - with its plug-ins it costs most of a second, and most fleets have no channel

    logging.getLogger("apprise").disabled = True  # it would name hosts, tokens and what the service answered
    asset = apprise.AppriseAsset(app_id="CloudLunacy", app_desc="CloudLunacy", async_mode=False, secure_logging=True)
    try:
        channel: Any = apprise.Apprise.instantiate(
            url.get_secret_value().strip(), asset=asset, suppress_exceptions=True
        )
        if channel is None or any(isinstance(one, apprise.AppriseAttachment) and len(one) for one in _parts(channel)):
            return False  # a file of this machine, or a URL, that would become part of what is sent
        channel.socket_connect_timeout, channel.socket_read_timeout = CONNECT_SECONDS, READ_SECONDS
        return bool(channel.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT))
    except Exception:  # noqa: BLE001 - of a service's plug-in; what it says may hold the URL
        return False


def _parts(channel: Any) -> list[Any]:  # noqa: ANN401 - of any plug-in
    return list(vars(channel).values())
