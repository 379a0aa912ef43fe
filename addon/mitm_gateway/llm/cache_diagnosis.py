"""The vendor's own explanation of a cache miss, where a response has one.

Anthropic: https://platform.claude.com/docs/en/build-with-claude/cache-diagnostics (`diagnostics`).
OpenAI: https://developers.openai.com/api/docs/guides/prompt-caching/diagnostics (`prompt_cache_diagnostics`).
"""

from collections.abc import Mapping
from typing import Any

from ..text.printable import compact, one_line
from .shapes import as_object

_MISSED = ("cache_missed_input_tokens", "cache_missed_tokens")


def diagnosis(response: Any) -> str | None:
    """Return the explanation in a parsed response; None if it has none."""
    if not isinstance(response, Mapping):
        return None
    if "diagnostics" in response:
        return _anthropic(response["diagnostics"])
    found = as_object(response.get("prompt_cache_diagnostics"))
    return _in_words(found, found.get("type"), found.get("reason")) if found else None


def _anthropic(diagnostics: Any) -> str:
    if not isinstance(diagnostics, Mapping):
        return "no difference found"
    reason = diagnostics.get("cache_miss_reason")
    if not isinstance(reason, Mapping):
        return "no difference found so far"
    return _in_words({**diagnostics, **reason}, reason.get("type"))


def _in_words(found: Mapping[str, Any], *reasons: Any) -> str:
    names = [
        compact(each.get("type", each) if isinstance(each, Mapping) else each) for each in reasons if each
    ]
    missed = next((found[name] for name in _MISSED if isinstance(found.get(name), int)), None)
    names += [f"{missed:,} tokens missed"] if missed is not None else []
    return one_line(", ".join(names))[:300] or "no reason"
