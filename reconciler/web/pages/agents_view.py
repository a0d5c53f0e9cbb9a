"""What pages show of agents beyond the API's own models: shares of a machine, and which agents are meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, get_args
from urllib.parse import urlencode

from reconciler.web.amounts import amount, part, size
from reconciler.web.pages.charts import Chart, Line, chart, used_of
from schemas.agent import Agent
from schemas.api import AgentCondition, AgentStatus
from schemas.health_api import Presence
from schemas.metrics import DEPLOYMENT, MACHINE, Unit
from schemas.metrics_api import MetricsHistory, Points
from schemas.session import ItemResult

STATES: Final = ("active", "cordoned", "quarantined", "not enrolled")
PRESENCES: Final[Sequence[str]] = get_args(Presence)
HOUR: Final = 3600


class Range(NamedTuple):
    """A time that charts show: its name, and seconds for each point, so that there are some 360 of them."""

    name: str
    seconds: int
    step: int


RANGES: Final = (
    Range("1h", HOUR, 10),
    Range("6h", 6 * HOUR, 60),
    Range("24h", 24 * HOUR, 240),
    Range("7d", 7 * 24 * HOUR, 1800),
    Range("30d", 30 * 24 * HOUR, 7200),
)


def range_of(name: str) -> Range:
    """Return the range of this name, else the shortest."""
    return next((one for one in RANGES if one.name == name), RANGES[0])


# --- the list -----------------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """Which agents somebody wants to see; what is empty asks for nothing."""

    q: str = ""
    label: str = ""
    """``key``, or ``key=value``."""
    presence: str = ""
    state: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """Read what stands behind the question mark."""
        return cls(*(query.get(name, "").strip()[:200] for name in cls._fields))

    def query(self, **more: str) -> str:
        """Return the same for a link."""
        return urlencode({name: value for name, value in {**self._asdict(), **more}.items() if value})

    @property
    def is_any(self) -> bool:
        """Say whether every agent is meant."""
        return not any(self)


def is_meant(agent: Agent, wanted: Wanted) -> bool:
    """Say whether an agent is meant, by its file."""
    text, key, value = wanted.q.lower(), *_label(wanted.label)
    if text and text not in agent.metadata.name and text not in agent.spec.address.lower():
        return False
    if key and (key not in agent.metadata.labels or value not in (None, agent.metadata.labels[key])):
        return False
    return not wanted.state or wanted.state == state_of(agent)


def _label(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    return key.strip(), value.strip() if equals else None


def state_of(agent: Agent) -> str:
    """Return the state of an agent, by its file."""
    return agent.spec.state if agent.spec.identity is not None else "not enrolled"


# --- shares of what a machine has ----------------------------------------------------------------------------------


class Share(NamedTuple):
    """How much of something is used: ``value`` of one, and the same in words."""

    name: str
    value: float
    text: str
    is_much: bool


MUCH: Final = 0.9
"""Of memory or disk: somebody should look."""


def shares(metrics: Mapping[str, float]) -> tuple[Share, ...]:
    """Return what is known of processors, memory and disk."""
    found = []
    cpu = metrics.get("machine_cpu_ratio")
    if cpu is not None:
        cores = metrics.get("machine_cpu_cores")
        of = f" of {amount(cores, 'count')} cores" if cores else ""
        found.append(Share("CPU", _within(cpu), part(cpu) + of, is_much=False))
    for name, free, total in (
        ("Memory", "machine_memory_available_bytes", "machine_memory_total_bytes"),
        ("Disk", "machine_disk_free_bytes", "machine_disk_total_bytes"),
        ("Engine’s disk", "machine_engine_disk_free_bytes", "machine_engine_disk_total_bytes"),
    ):
        whole, left = metrics.get(total, 0.0), metrics.get(free)
        if left is not None and whole > 0:
            used = _within(1 - left / whole)
            text = f"{size(max(0.0, whole - left))} of {size(whole)} ({part(used)})"
            found.append(Share(name, used, text, used >= MUCH))
    return tuple(found)


def _within(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 4)


def is_fresh(status: AgentStatus) -> bool:
    """Say whether the numbers of an agent are those of now: of one that nobody hears they are what they were."""
    return any(one.type == "Connected" and one.status == "True" for one in status.conditions)


def condition(status: AgentStatus, kind: str) -> AgentCondition | None:
    """Return one of an agent's conditions."""
    return next((one for one in status.conditions if one.type == kind), None)


class Measurement(NamedTuple):
    """A number that an agent told, for people. ``text`` is empty where the name is not known here."""

    name: str
    value: str
    text: str


def measurements(metrics: Mapping[str, float]) -> tuple[Measurement, ...]:
    """Return every number, those that are known first."""
    names = [*(name for name in MACHINE if name in metrics), *sorted(metrics.keys() - MACHINE.keys())]
    return tuple(Measurement(name, amount(metrics[name], _unit(name)), _text(name)) for name in names)


def usage(values: Mapping[str, float]) -> tuple[str, ...]:
    """Return what a deployment uses: processors, memory, processes, restarts; an empty text where nothing is known."""
    return tuple(
        "" if (value := values.get(name)) is None else amount(value, DEPLOYMENT[name].unit)
        for name in ("cpu_cores", "memory_bytes", "pids", "restarts")
    )


def _unit(name: str) -> Unit:
    return MACHINE[name].unit if name in MACHINE else "count"


def _text(name: str) -> str:
    return MACHINE[name].text if name in MACHINE else ""


# --- desired against applied ---------------------------------------------------------------------------------------


class ItemRow(NamedTuple):
    """What an agent shall have, or has: as git says, and as the agent said last."""

    id: str
    link: str
    """The page of what it is of; empty where there is none."""
    is_wanted: bool
    state: str
    """``Applied``, ``Progressing``, ``Failed``; ``NotTold`` of what the agent has said nothing."""
    reason: str
    message: str


_ORDER: Final = {"Failed": 0, "Progressing": 1, "NotTold": 2, "Applied": 3}


def item_rows(wanted: Iterable[str], told: Iterable[ItemResult], limit: int = 200) -> tuple[list[ItemRow], int]:
    """Return what is wanted beside what was told, that which needs somebody first, and how many more there are.

    ``wanted``: ids of items, such as ``Deployment/shop/web``; items that agents tell of besides are told apart.
    """
    wanted = dict.fromkeys(wanted)
    said = {one.id: one for one in told}
    rows = [
        ItemRow(one, link_of(one), one in wanted, *_said(said.get(one)))
        for one in dict.fromkeys([*wanted, *said])
        if not one.startswith("Agent/")
    ]
    rows.sort(key=lambda row: (_ORDER.get(row.state, 0), row.id))
    return rows[:limit], max(0, len(rows) - limit)


def _said(told: ItemResult | None) -> tuple[str, str, str]:
    return ("NotTold", "", "") if told is None else (told.state, told.reason, told.message)


def link_of(item: str) -> str:
    """Return the page of a deployment's item. What an agent names so is no path of ours unless it looks like one."""
    kind, _, rest = item.partition("/")
    team, slash, name = rest.partition("/")
    plain = all(part and part.isascii() and part.replace("-", "").isalnum() for part in (team, name))
    return f"/deployments/{team}/{name}" if kind in ("Deployment", "Certificate") and slash and plain else ""


# --- charts --------------------------------------------------------------------------------------------------------

NONE: Final = Points(unit="", at=(), samples=(), mean=(), low=(), high=())


def machine_charts(history: MetricsHistory, metrics: Mapping[str, float]) -> tuple[Chart, ...]:
    """Return the charts of a machine; ``metrics`` are the last that it told, which say how much there is in all."""
    since, until, step = history.since.timestamp(), history.until.timestamp(), history.step

    def of(name: str) -> Points:
        return history.series.get(name, NONE)

    def drawn(title: str, lines: Sequence[Line], unit: Unit, ceiling: float | None = None) -> Chart:
        return chart(title, lines, since, until, unit=unit, step=step, ceiling=ceiling)

    def filled(what: str, free: str, total: float) -> Chart:
        if total <= 0:
            return drawn(f"{what} that is free", [Line("free", of(free))], "bytes")
        return drawn(f"{what} in use, of {size(total)}", [Line("in use", used_of(of(free), total))], "bytes", total)

    received, sent = "machine_network_received_bytes_rate", "machine_network_sent_bytes_rate"
    return (
        drawn("Processors in use", [Line("in use", of("machine_cpu_ratio"))], "ratio", 1.0),
        filled("Memory", "machine_memory_available_bytes", metrics.get("machine_memory_total_bytes", 0.0)),
        filled("Disk", "machine_disk_free_bytes", metrics.get("machine_disk_total_bytes", 0.0)),
        drawn("Network", [Line("received", of(received)), Line("sent", of(sent))], "bytes/s"),
    )


def deployment_charts(histories: Sequence[MetricsHistory], since: float, until: float) -> tuple[Chart, ...]:
    """Return what a deployment used, with a line for each agent."""

    def drawn(title: str, name: str, unit: Unit) -> Chart:
        lines = [Line(one.agent, one.series.get(name, NONE)) for one in histories]
        step = max((one.step for one in histories), default=10)
        return chart(title, lines, since, until, unit=unit, step=step)

    return (
        drawn("Processors kept busy", "cpu_cores", "cores"),
        drawn("Memory in use", "memory_bytes", "bytes"),
        drawn("Processes and threads", "pids", "count"),
    )
