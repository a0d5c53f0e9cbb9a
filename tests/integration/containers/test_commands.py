"""Commands about what runs in real containers: its log, programs beside it, and a fresh instance."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from agent.deployments.driver import Written
from agent.deployments.workload import Key
from tests.support.container_machine import SERVE, containers, running, settled, until, web
from tests.support.networked_engine import NetworkedEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

KEY = Key("shop", "told")
WRITING = f"echo one; echo two >&2; echo three; {SERVE}"


def test_logs_programs_and_a_fresh_instance(machine: NetworkedEngine, tmp_path: Path) -> None:
    """Both streams are in the log; a program has its output, exit code and end; a restart makes another container."""

    async def scenario() -> None:
        async with running(machine, tmp_path) as service:
            item = web(name="told", host=8093, command=["sh", "-c", WRITING])
            said = (await settled(service, item))["told"]
            assert said.reason == "Running", said
            found = service.commanding.instance(KEY)
            assert found is not None
            driver, instance = found

            async with aclosing(driver.logs(instance, tail=3)) as lines:
                assert sorted([line async for line in lines]) == ["one", "three", "two"]

            async with aclosing(driver.execute(instance, ("sh", "-c", "echo out; echo err >&2; exit 7"))) as parts:
                written = [part async for part in parts]
            assert written[-1] == 7
            texts = {part.stream: part.text for part in written if isinstance(part, Written)}
            assert texts == {"stdout": "out\n", "stderr": "err\n"}

            async with aclosing(driver.execute(instance, ("sh", "-c", "echo begun; sleep 4711 & sleep 4711"))) as parts:
                assert await anext(parts) == Written("begun\n")
            listed = machine.command("top", instance.id).stdout
            assert "4711" not in listed, listed

            before = [one["Id"] for one in containers(machine)]
            await service.commanding.restart(KEY, "1" * 32)
            await service.commanding.restart(KEY, "1" * 32)

            async def done() -> bool:
                return service.commanding.standing(KEY, "1" * 32).state == "done"

            await until(done, "the restart")
            after = containers(machine)
            assert len(after) == 1
            assert after[0]["Id"] not in before
            assert (await settled(service, item))["told"].reason == "Running"
            assert [one["Id"] for one in containers(machine)] == [after[0]["Id"]]

    machine.inside(scenario)
