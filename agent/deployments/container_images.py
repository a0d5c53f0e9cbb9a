"""Images of the container engine: fetched as the deployment says, and asked whom they run as."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from agent.deployments.driver import DriverError
from agent.deployments.engine_errors import of_engine, translated
from agent.deployments.given import Given
from schemas.deployment import DeploymentSpec
from schemas.images import image_name

_INSPECT_SECONDS: Final = 60.0
_PULL_SECONDS: Final = 1800.0


async def ensure_image(docker: aiodocker.Docker, spec: DeploymentSpec, given: Given) -> dict[str, Any]:
    """Have the image there, by its pull policy, and return what the engine shows of it. Raises DriverError.

    As usual what is there is taken: what runs is changed by a commit, not by whoever moves a tag.
    """
    assert spec.image is not None, "the schema asks for it"
    if spec.pull_policy != "Always":
        found = await _inspect(docker, spec.image)
        if found is not None:
            return found
        if spec.pull_policy == "Never":
            text = f"image {spec.image} is not on this server, and pullPolicy is Never."
            raise DriverError("PullFailed", text, retryable=True)
    await _pull(docker, spec.image, spec, given)
    found = await _inspect(docker, spec.image)
    if found is None:
        raise DriverError("PullFailed", f"image {spec.image} was pulled and is gone again.", retryable=True)
    return found


def owner_of_files(spec: DeploymentSpec, image: dict[str, Any]) -> tuple[int, int]:
    """Return user and group, as numbers, of what only the workload may read.

    Raises:
        DriverError: only the image knows which number its user has.
    """
    named = spec.user or str((image.get("Config") or {}).get("User") or "0")
    user, _, group = named.partition(":")
    if not user.isdecimal() or (group and not group.isdecimal()):
        text = (
            f'The image runs as "{named}". Write user with the number that it has there, for the sake of secretFiles.'
        )
        raise DriverError("UserUnknown", text)
    return int(user), int(group or user)


async def _inspect(docker: aiodocker.Docker, image: str) -> dict[str, Any] | None:
    with translated():
        try:
            async with asyncio.timeout(_INSPECT_SECONDS):
                return dict(await docker.images.inspect(image))
        except DockerError as error:
            if error.status != 404:
                raise
            return None


async def _pull(docker: aiodocker.Docker, image: str, spec: DeploymentSpec, given: Given) -> None:
    credentials = None
    if spec.registry is not None:
        credentials = {"username": spec.registry.username, "password": given.value(spec.registry.password)}
        image = image_name(image)  # the library asks for the registry's name where there are credentials
    try:
        async with asyncio.timeout(_PULL_SECONDS):
            await docker.images.pull(image, auth=credentials)
    except TimeoutError:
        text = f"image {image} was not pulled within {_PULL_SECONDS / 60:.0f} minutes."
        raise DriverError("PullFailed", text, retryable=True) from None
    except (DockerError, aiohttp.ClientError) as error:
        said = of_engine(error) if isinstance(error, DockerError) else None
        if said is not None and said.engine:
            raise said from None
        why = error.message if isinstance(error, DockerError) else type(error).__name__
        raise DriverError("PullFailed", f"image {image} cannot be pulled: {why}.", retryable=True) from None
