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


_NAMES: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda value: isinstance(value, str),
     "time rule method host path upstream model model_sent service_tier refusal outcome hint session agent auth "
     "credential retry error"),
    (lambda value: type(value) is int and 0 <= value < _MOST,
     "status input_tokens output_tokens cache_read_tokens cache_creation_tokens cache_creation_long_tokens "
     "fresh_tokens bytes_out bytes_in bytes_received"),
    (lambda value: type(value) in (int, float) and 0 <= value < _MOST,
     "first_event_ms total_ms cost_usd credential_age_s"),
    (lambda value: isinstance(value, list | tuple) and all(isinstance(each, str) for each in value),
     "edits applied notes"),
    (lambda value: isinstance(value, bool), "replayed is_answered_here"),
)  # fmt: skip
_KINDS = {key: is_sound for is_sound, keys in _NAMES for key in keys.split()}
