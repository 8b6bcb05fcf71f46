"""All lies."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "vectors"))  # its tables to search

import cloud_lies
import record_lies
import store_lies
from lie import Lie

LIES: tuple[Lie, ...] = (*record_lies.LIES, *cloud_lies.LIES, *store_lies.LIES)
