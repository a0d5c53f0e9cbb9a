"""Who is told what (``spec.notifications`` of the fleet file)."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.base import Model
from schemas.names import Duration, HttpsUrl, Name, seconds
from schemas.secret import SecretKey

Severity = Literal["error", "warning", "info"]
TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""Hours and minutes, such as 22:00."""
TypeName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{0,63}$")]
"""Of a condition or of an event, such as AgentAway (docs/notifications.md)."""
SHORTEST_REMINDER: Final = 60.0


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'"{name}" is no time zone; write it like Europe/Amsterdam') from None
    return name


TimeZone = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"), AfterValidator(_known_zone)
]


class FleetSecret(Model):
    """One value of a sealed secret, of whichever team."""

    team: Name
    name: Name
    key: SecretKey


class NotificationWebhook(Model):
    """A receiver of signed CloudEvents."""

    url: HttpsUrl
    secret: FleetSecret
    """What the messages are signed with (https://www.standardwebhooks.com)."""


class Quiet(Model):
    """Hours in which only errors are told at once. What came up meanwhile is told afterwards, in one message."""

    begin: TimeOfDay
    end: TimeOfDay
    """Before ``begin``: on the next day."""
    time_zone: TimeZone = "UTC"
    errors: bool = False
    """Errors wait as well."""

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.begin == self.end:
            raise ValueError("quiet hours that begin when they end would be all day or never")
        return self


class Channel(Model):
    """Where somebody is told. It has either ``apprise`` or ``webhook``."""

    name: Name
    apprise: FleetSecret | None = None
    """The secret holds the channel's URL in the form of Apprise, such as ``slack://…`` or ``mailtos://…``."""
    webhook: NotificationWebhook | None = None
    digest: Duration = "10s"
    """What comes up within this time is told in one message."""
    quiet: Quiet | None = None

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if (self.apprise is None) == (self.webhook is None):
            raise ValueError(f'channel "{self.name}" needs one of apprise and webhook')
        return self


class NotificationRule(Model):
    """What is told where. All that it names must fit; what it does not name fits always."""

    channels: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    severities: Annotated[tuple[Severity, ...], Field(min_length=1, max_length=3)] = ("error", "warning")
    teams: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    """Only what belongs to these teams."""
    conditions: Annotated[tuple[TypeName, ...], Field(max_length=64)] = ()
    """Only these types; without any, and without ``events``, all."""
    events: Annotated[tuple[TypeName, ...], Field(max_length=64)] = ()
    """Types of events of the timeline that are told as they happen, such as PlanApproved."""
    after: Duration = "30s"
    """How long something has to be wrong before it is told."""
    remind: Duration | None = None
    """Tell again what is still wrong, that often."""

    @model_validator(mode="after")
    def _reminds_seldom(self) -> Self:
        if self.remind is not None and seconds(self.remind) < SHORTEST_REMINDER:
            raise ValueError("reminders are at least 1m apart")
        return self


class Notifications(Model):
    """Without it nobody is told anything; the dashboard shows the same."""

    channels: Annotated[tuple[Channel, ...], Field(max_length=64)] = ()
    rules: Annotated[tuple[NotificationRule, ...], Field(max_length=256)] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        known: set[str] = set()
        for channel in self.channels:
            if channel.name in known:
                raise ValueError(f'channel "{channel.name}" is listed twice')
            known.add(channel.name)
        for rule in self.rules:
            for name in rule.channels:
                if name not in known:
                    raise ValueError(f'a rule names channel "{name}", which is not listed under channels')
        return self
