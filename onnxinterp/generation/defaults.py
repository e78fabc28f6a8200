"""The end and the padding token, from the configuration beside a model.

Exporters write `generation_config.json` (Hugging Face) or `genai_config.json` (onnxruntime-genai)
next to the model. Nothing else is taken from them: settings of sampling are the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from onnxinterp.errors import InvalidModelError

MAX_CONFIG_BYTES = 2**20
CONFIGS = ("generation_config.json", "genai_config.json")


class EndTokens(NamedTuple):
    """Tokens that a configuration names.

    Attributes:
        ends: each ends a row.
        pad: follows after the end; None where it is not said.
    """

    ends: tuple[int, ...] = ()
    pad: int | None = None


def end_tokens(folder: Path | None) -> EndTokens:
    """The tokens that the configuration in a folder names; none where there is no configuration.

    Raises:
        InvalidModelError: a configuration cannot be read.
    """
    for name in CONFIGS if folder is not None else ():
        assert folder is not None, "there is nothing to look for without one"
        path = folder / name
        if path.is_file():
            found = _tokens(path)
            if found.ends:
                return found
    return EndTokens()


def _tokens(path: Path) -> EndTokens:
    config = _read(path)
    config = config.get("model", config) if path.name == CONFIGS[1] else config
    if not isinstance(config, dict):
        raise InvalidModelError(f"{path}: model must be an object")
    return EndTokens(tuple(_ids(path, config, "eos_token_id")), _first(path, config))


def _first(path: Path, config: Mapping[str, Any]) -> int | None:
    return next(iter(_ids(path, config, "pad_token_id")), None)


def _ids(path: Path, config: Mapping[str, Any], name: str) -> list[int]:
    """One token or a list of tokens."""
    value = config.get(name)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(i) is int and i >= 0 for i in ids):
        raise InvalidModelError(f"{path}: {name} must be a token or a list of tokens, got {value}")
    return ids


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise InvalidModelError(f"{path} must have at most {MAX_CONFIG_BYTES} bytes")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise InvalidModelError(f"{path} must contain an object")
    return config
