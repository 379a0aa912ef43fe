"""Facts about a request as a file contains them: untrusted, since anybody may have written the file."""

from collections.abc import Callable, Mapping
from typing import Any

# 30 years in milliseconds, and more bytes than a file has.
_MOST = 10**12


def known_facts(data: object) -> Mapping[str, Any]:
    """Return the keys of a log line, or of a flow's facts, whose values are of the kind that a gateway writes."""
    if not isinstance(data, dict):
        return {}
    return {key: data[key] for key, is_sound in _KINDS.items() if key in data and is_sound(data[key])}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


_NAMES: tuple[tuple[Callable[[object], bool], str], ...] = (
    (_is_text, "time rule method host path upstream model model_sent service_tier refusal outcome hint session agent auth "
               "credential retry error"),
    (_is_count, "status input_tokens output_tokens cache_read_tokens cache_creation_tokens cache_creation_long_tokens "
                "fresh_tokens bytes_out bytes_in bytes_received"),
    (_is_number, "first_event_ms total_ms cost_usd credential_age_s"),
    (_are_texts, "edits applied notes"),
    (_is_flag, "replayed is_answered_here"),
)  # fmt: skip
_KINDS = {key: is_sound for is_sound, keys in _NAMES for key in keys.split()}
