from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.objects import FLEET_KEY, ObjectKey, key_of_path

GOOD = {
    "fleet.yaml": FLEET_KEY,
    "agents/vps-1.yaml": ObjectKey("Agent", "", "vps-1"),
    "certificates/apps.yaml": ObjectKey("Certificate", "", "apps"),
    "secrets/shop/a.yaml": ObjectKey("Secret", "shop", "a"),
    "deployments/shop/a.yaml": ObjectKey("Deployment", "shop", "a"),
    "routes/shop/web.yaml": ObjectKey("Route", "shop", "web"),
}


@pytest.mark.parametrize(("path", "key"), GOOD.items())
def test_a_path_is_a_key_and_a_key_is_a_path(path: str, key: ObjectKey) -> None:
    """Neither needs the content of the file."""
    assert key_of_path(path) == key
    assert key.path == path


@pytest.mark.parametrize(
    "path",
    [
        "", "README.md", "fleet.yml", "fleet.yaml\n", "Fleet.yaml", "sub/fleet.yaml", "agents/vps-1.yml",
        "agents/a/b.yaml", "agents/vps-1.yaml\n", "agents/A.yaml", "agents/.yaml", "agents/../fleet.yaml",
        "agents//a.yaml", "/agents/a.yaml",
        "./agents/a.yaml", "routes/web.yaml", "routes/shop/x/web.yaml", "routes/Shop/web.yaml", "routes/shop/con.yaml",
        "routes/nul/web.yaml", "agents/a.yaml.j2", "agents/a_b.yaml", ".github/agents/a.yaml", "agents/\udcff.yaml",
    ],
)  # fmt: skip
def test_no_object_lies_elsewhere(path: str) -> None:
    """Other names, other depths, other endings and names of devices."""
    assert key_of_path(path) is None


@given(st.text(max_size=40))
def test_two_paths_never_share_a_key(path: str) -> None:
    """Where a path has a key, the key leads back to exactly this path."""
    key = key_of_path(path)
    assert key is None or key.path == path


def test_a_key_reads_as_kind_team_and_name() -> None:
    """The form in which problems and events name an object."""
    assert str(ObjectKey("Route", "shop", "web")) == "Route/shop/web"
    assert str(ObjectKey("Agent", "", "vps-1")) == "Agent/vps-1"
    assert str(FLEET_KEY) == "Fleet"
