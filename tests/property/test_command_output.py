"""What a command writes reaches the session whole, in pieces that a message takes, or missing lines are counted."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agent.commands.handling import HIGH_WATER, PIECE, Output, pieces
from agent.talk import Talk, TalkLimits
from schemas.session import COMMANDS, MAX_AGENT_MESSAGE, CommandOutput

ONE = "1" * 32
PARTS = st.lists(
    st.tuples(st.text(alphabet=st.sampled_from("ab\n\x00é\U0001f600\u2028"), max_size=60), st.integers(1, 3000),
              st.sampled_from(["stdout", "stderr"])),
    max_size=12,
)  # fmt: skip


@given(st.text(alphabet="ab\né\U0001f600", max_size=400), st.integers(1, 50))
def test_pieces_are_the_text(text: str, size: int) -> None:
    """Joined they are the text; none is empty or longer than it may be."""
    cut = list(pieces(text, size))
    assert "".join(cut) == text
    assert all(0 < len(one) <= size for one in cut)


@given(PARTS)
def test_what_can_wait_arrives_whole(parts: list[tuple[str, int, str]]) -> None:
    """Text of each stream arrives in order, nothing is left out, and every message fits."""
    talk = Talk([COMMANDS], TalkLimits())
    talk.offered([COMMANDS])
    talk.next(0.0, 0)
    sent: list[CommandOutput] = []

    def drain() -> None:
        while (message := talk.next(0.0, 0)) is not None:
            assert isinstance(message, CommandOutput)
            assert len(message.text) <= PIECE
            assert len(message.model_dump_json(by_alias=True).encode()) <= MAX_AGENT_MESSAGE
            sent.append(message)

    def waiting(command: str) -> int:
        if talk.waiting(command) >= HIGH_WATER:
            drain()
        return talk.waiting(command)

    async def write() -> None:
        output = Output(ONE, talk.say, waiting)
        for text, times, stream in parts:
            await output.write(text * times, "stdout" if stream == "stdout" else "stderr")
        output.end(exit_code=0)

    asyncio.run(write())
    drain()
    for stream in ("stdout", "stderr"):
        written = "".join(text * times for text, times, one in parts if one == stream)
        assert "".join(message.text for message in sent if message.stream == stream) == written
    assert [message.last for message in sent].count(True) == 1
    assert sent[-1].last
    assert not any(message.dropped for message in sent)


@given(st.lists(st.tuples(st.text(alphabet="ab\u2028", max_size=20), st.booleans()), max_size=60))
def test_lines_arrive_or_are_counted(lines: list[tuple[str, bool]]) -> None:
    """Of lines that are offered while much waits, those that did not arrive are as many as were said to be left out."""
    said: list[CommandOutput] = []
    full = False
    output = Output(ONE, said.append, lambda _: HIGH_WATER if full else 0)
    for text, is_full in lines:
        full = is_full
        output.offer(text)
    output.end()
    arrived = "".join(one.text for one in said)
    assert arrived == "".join(f"{text}\n" for text, is_full in lines if not is_full)
    assert arrived.count("\n") + sum(one.dropped for one in said) == len(lines)
