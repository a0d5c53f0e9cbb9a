"""What all documents share: the envelope, and models that refuse what they do not know."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.names import LabelKey, LabelValue, Name

API_VERSION: Final = "cloudlunacy/v1"
EMPTY: Final[Any] = Field(default_factory=dict, json_schema_extra={"default": {}})
"""The default of a mapping. (``= {}`` means the same, but pydantic copies that deeply for each object: 3 µs.)"""


class Model(BaseModel):
    """A frozen value: camelCase outside, snake_case inside, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class Metadata(Model):
    """Who an object is. The team is not written here: the file's folder says it."""

    name: Name
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = EMPTY
    """Free words to select by."""
    annotations: Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] = EMPTY
    """Free text for people and tools; the control plane does not read it."""


class Document(Model):
    """The envelope of every object."""

    api_version: Literal["cloudlunacy/v1"]
    metadata: Metadata
