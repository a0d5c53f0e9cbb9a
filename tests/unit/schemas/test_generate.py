from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from schemas.generate import EXAMPLES, file_name, generate
from schemas.objects import ADAPTERS, KINDS, Kind

SCHEMAS: dict[str, Any] = {name: json.loads(text) for name, text in generate().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_schema_of_its_own(kind: Kind) -> None:
    """With dialect, identity, title and description, and valid as a schema."""
    schema = SCHEMAS[file_name(kind)]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (schema["$id"], schema["title"]) == (f"urn:cloudlunacy:v1:{kind.lower()}", kind)
    assert schema["description"]


@pytest.mark.parametrize(("kind", "example"), [(kind, example) for kind, all_ in EXAMPLES.items() for example in all_])
def test_the_examples_are_valid(kind: Kind, example: dict[str, Any]) -> None:
    """Under the schema they stand in, and under the model."""
    jsonschema.validate(example, SCHEMAS[file_name(kind)])
    ADAPTERS[kind].validate_python(example)


def test_every_kind_has_an_example() -> None:
    """Editors show it to somebody who starts with an empty file."""
    assert set(EXAMPLES) == set(KINDS)


def test_names_are_written_as_in_yaml() -> None:
    """camelCase, and no field offers null."""
    text = json.dumps(SCHEMAS)
    assert '"healthCheck"' in text
    assert '"health_check"' not in text
    assert '"null"' not in text
    assert ": null" not in text
