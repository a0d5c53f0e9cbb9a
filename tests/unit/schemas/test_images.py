"""Names of images and the patterns that cover them."""

from __future__ import annotations

import pytest

from schemas.images import allows, image_name, repository

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("image", "whole", "without"),
    [
        ("nginx", "docker.io/library/nginx", "docker.io/library/nginx"),
        ("nginx:1.29", "docker.io/library/nginx:1.29", "docker.io/library/nginx"),
        ("bitnami/nginx:1", "docker.io/bitnami/nginx:1", "docker.io/bitnami/nginx"),
        ("localhost/web:1", "localhost/web:1", "localhost/web"),
        ("registry.example.com:5000/web", "registry.example.com:5000/web", "registry.example.com:5000/web"),
        (f"ghcr.io/shop/web:1@{DIGEST}", f"ghcr.io/shop/web:1@{DIGEST}", "ghcr.io/shop/web"),
    ],
)
def test_a_name_without_a_registry_is_docker_hubs(image: str, whole: str, without: str) -> None:
    """As engines read it: a first part without dot, port or localhost is no registry."""
    assert (image_name(image), repository(image)) == (whole, without)


@pytest.mark.parametrize(
    ("pattern", "image", "covered"),
    [
        ("ghcr.io/shop/*", "ghcr.io/shop/web:1", True),
        ("ghcr.io/shop/*", "ghcr.io/shop/deep/web@" + DIGEST, True),
        ("ghcr.io/shop/*", "ghcr.io/shop", False),
        ("ghcr.io/shop/*", "ghcr.io/shopping/web", False),
        ("ghcr.io/shop/*", "ghcr.io/shop/../evil/web", False),
        ("ghcr.io/shop/web", "ghcr.io/shop/web:2", True),
        ("ghcr.io/shop/web", "ghcr.io/shop/web-2", False),
        ("ghcr.io/*", "ghcr.io.evil.example/shop/web", False),
        ("nginx", "docker.io/library/nginx:1", True),
        ("library/*", "nginx:1", True),
        ("*", "bitnami/nginx", True),
        ("*", "ghcr.io/shop/web", False),
    ],
)
def test_patterns_cover_what_lies_below_and_nothing_beside(pattern: str, image: str, covered: bool) -> None:
    """A registry, a folder of it, or one image; never a neighbour with a longer name."""
    assert allows(pattern, image) is covered
