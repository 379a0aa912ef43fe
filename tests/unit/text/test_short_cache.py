"""The cache for functions of text from peers."""

from mitm_gateway.text.short_cache import MAX_CACHED_LENGTH, remember_short


def test_only_short_texts_are_remembered() -> None:
    calls: list[str] = []

    @remember_short
    def length(text: str) -> int:
        calls.append(text)
        return len(text)

    for text in ("a", "b" * MAX_CACHED_LENGTH, "c" * (MAX_CACHED_LENGTH + 1)):
        assert [length(text), length(text)] == [len(text), len(text)]
    assert [len(text) for text in calls] == [
        1,
        MAX_CACHED_LENGTH,
        MAX_CACHED_LENGTH + 1,
        MAX_CACHED_LENGTH + 1,
    ]
