"""The difference between two requests of a conversation, in words: what a provider's prompt cache can reuse.

`difference` compares two digests. `in_words` describes the result; with both prompts at hand it also shows the places.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..text.printable import one_line
from .prompt import Digest, Prompt

# The text shown around a change, and the names listed at most.
_BEFORE, _SHOWN, _MAX_NAMES = 24, 72, 12
_Text: TypeAlias = "str | array[int]"  # Python 3.11 cannot evaluate it
_Both: TypeAlias = tuple[Prompt, Prompt] | None
_NUMBERS = [
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


@dataclass(frozen=True, slots=True)
class Difference:
    """Changes from an earlier request to a later one."""

    same: int
    """The number of messages at the beginning that are equal."""
    earlier: int
    later: int
    """The numbers of messages of both."""
    model: tuple[str | None, str | None] | None
    tools_gone: tuple[str, ...]
    tools_new: tuple[str, ...]
    tools_changed: tuple[str, ...]
    are_tools_reordered: bool
    is_system_changed: bool
    is_billing_changed: bool
    settings: tuple[str, ...]
    continues: str | None

    @property
    def is_prefix_kept(self) -> bool:
        """True if the whole earlier prompt is the beginning of the later one, so that all of it can be reused."""
        return self.same == self.earlier and self.model is None and not self.is_head_changed

    @property
    def is_head_changed(self) -> bool:
        """True if tools or system prompt changed: nothing that follows them can be reused."""
        tools = self.tools_gone or self.tools_new or self.tools_changed or self.are_tools_reordered
        return bool(tools) or self.is_system_changed


def difference(earlier: Digest, later: Digest) -> Difference:
    """Compare two requests."""
    before, after = dict(earlier.tools), dict(later.tools)
    kept = [name for name, _ in later.tools if name in before]
    return Difference(
        same=shared_messages(earlier, later),
        earlier=len(earlier.messages),
        later=len(later.messages),
        model=(earlier.model, later.model) if earlier.model != later.model else None,
        tools_gone=tuple(name for name in before if name not in after),
        tools_new=tuple(name for name in after if name not in before),
        tools_changed=tuple(name for name in dict.fromkeys(kept) if before[name] != after[name]),
        are_tools_reordered=kept != [name for name, _ in earlier.tools if name in after],
        is_system_changed=earlier.system != later.system,
        is_billing_changed=earlier.billing != later.billing,
        settings=_changed(dict(earlier.settings), dict(later.settings)),
        continues=later.continues,
    )


def shared_messages(earlier: Digest, later: Digest) -> int:
    """Return how many messages at the beginning of two conversations are equal."""
    return _common(earlier.messages, later.messages)


def _changed(before: dict[str, int], after: dict[str, int]) -> tuple[str, ...]:
    return tuple(name for name in {**before, **after} if before.get(name) != after.get(name))


def _common(one: _Text, other: _Text) -> int:
    """Return the length of the common beginning, by bisection: comparing slices is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def in_words(found: Difference, earlier: Prompt | None = None, later: Prompt | None = None) -> list[str]:
    """Describe a difference, one line each, in the order of the prompt; lines of detail are indented.

    Without the prompts the places of the changes are left out. Text of the prompts is printable, and cut.
    """
    both = (earlier, later) if earlier is not None and later is not None else None
    return [
        *_model(found),
        *_tools(found, both),
        *_system(found, both),
        *_settings(found, both),
        *_messages(found, both),
    ]


def _model(found: Difference) -> Iterator[str]:
    if found.model is not None:
        before, after = (one_line(name or "none") for name in found.model)
        yield f"model changed: {before} → {after}"


def _tools(found: Difference, both: _Both) -> Iterator[str]:
    groups = ((found.tools_gone, "gone"), (found.tools_new, "new"), (found.tools_changed, "changed"))
    parts = [f"{_names(names)} {word}" for names, word in groups if names]
    parts += ["order changed"] if found.are_tools_reordered else []
    if parts:
        yield f"tools changed: {', '.join(parts)}"
    if both and found.tools_changed:
        name = found.tools_changed[0]
        before, after = (dict(prompt.tools).get(name, "") for prompt in both)
        yield from _place(f"`{one_line(name)}` differs", before, after, indent="  ")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{one_line(name)}`" for name in names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES:,} more"


def _system(found: Difference, both: _Both) -> Iterator[str]:
    if found.is_system_changed:
        yield from _place("system changed", both[0].system, both[1].system) if both else ["system changed"]
    if found.is_billing_changed:
        yield "billing line of Claude Code changed: Anthropic leaves it out of the prompt, other providers may not"


def _settings(found: Difference, both: _Both) -> Iterator[str]:
    if not found.settings:
        return
    values = [dict(prompt.settings) for prompt in both] if both else []
    shown = [
        f"{one_line(name)} {_value(values[0].get(name))} → {_value(values[1].get(name))}"
        if values
        else one_line(name)
        for name in found.settings[:_MAX_NAMES]
    ]
    yield f"settings changed: {', '.join(shown)}"


def _value(text: str | None) -> str:
    return "unset" if text is None else one_line(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _messages(found: Difference, both: _Both) -> Iterator[str]:
    new = found.later - found.same
    if found.continues:
        yield f"continues stored response {one_line(found.continues)}, {_count(found.later)} new"
    elif found.same == found.earlier == found.later:
        yield f"same messages ({found.same:,})"
    elif found.same == found.earlier:
        yield f"same up to message {found.same:,}, {_count(new)} new"
    elif found.same == found.later:
        yield f"same up to message {found.same:,}, {_count(found.earlier - found.same)} gone"
    else:
        begin = f"same up to message {found.same:,}; " if found.same else ""
        yield from _changed_message(found, begin, both)


def _changed_message(found: Difference, begin: str, both: _Both) -> Iterator[str]:
    number = found.same + 1
    if both is None:
        yield f"{begin}message {number:,} changed"
    else:
        before, after = (prompt.messages[found.same] for prompt in both)
        title = f"{begin}message {number:,} ({one_line(after.role)}) changed"
        yield from _place(title, before.text, after.text)
    if found.later != found.earlier:
        yield f"{found.earlier:,} messages before, {found.later:,} now"


def _count(number: int) -> str:
    word = _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"
    return f"{word} message{'' if number == 1 else 's'}"


def _place(title: str, before: str, after: str, indent: str = "") -> Iterator[str]:
    """Yield where two texts begin to differ, and both texts there."""
    at = _common(before, after)
    end = _common(before[at:][::-1], after[at:][::-1])
    yield f"{indent}{title} at character {at + 1:,}"
    yield f"{indent}  - {_around(before, at, len(before) - end)}"
    yield f"{indent}  + {_around(after, at, len(after) - end)}"


def _around(text: str, at: int, end: int) -> str:
    start, stop = max(0, at - _BEFORE), min(len(text), max(end + _BEFORE, at + _BEFORE), at + _SHOWN)
    shown = one_line(text[start:stop])
    return f"{'…' if start else ''}{shown}{'…' if stop < len(text) else ''}" or "(nothing)"
