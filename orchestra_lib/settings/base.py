"""What all settings models share: frozen, strict, and closed against keys that nobody reads."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

_BYTES = {"Mi": 1 << 20, "Gi": 1 << 30}


class Model(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True, populate_by_name=True
    )


def memory_bytes(quantity: str) -> int:
    """The bytes of a quantity such as ``2Gi``. Raises ValueError for anything else, ``2G`` and ``2GB`` included."""
    match = re.fullmatch(r"([1-9][0-9]*)(Mi|Gi)", quantity)
    if not match:
        raise ValueError("give memory in binary units, such as 2Gi or 512Mi: 2G is 7 % less than 2Gi")
    return int(match[1]) * _BYTES[match[2]]


def _checked(quantity: str) -> str:
    memory_bytes(quantity)
    return quantity


MemoryQuantity = Annotated[str, AfterValidator(_checked)]
"""A text such as ``2Gi``."""


Address = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}$")]
"""An e-mail address."""


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


FromList = BeforeValidator(_as_tuple)
"""Lets a tuple stand as a list in YAML; everything else stays strict."""


def split_names(value: Any) -> Any:
    """The names in a text with commas or spaces between them; a list as a tuple, anything else as it is."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else _as_tuple(value)


Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
"""Names as a list, or as one text with commas or spaces between them: what ``-p`` of papermill can give."""


def _two_digits(value: Any) -> Any:
    # Papermill's -p makes the number 1 of 01.
    return f"{value:02d}" if isinstance(value, int) and not isinstance(value, bool) else value


ALL_PHASES = "all"
PhaseNumber = Annotated[str, BeforeValidator(_two_digits), StringConstraints(pattern=r"^0[0-8]$")]
"""A phase as two digits, such as ``01``."""
PhaseOrAll = Annotated[str, BeforeValidator(_two_digits), StringConstraints(pattern=rf"^(0[0-8]|{ALL_PHASES})$")]
"""A phase as two digits, or ``all`` of them."""
