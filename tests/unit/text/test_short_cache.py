"""The cache for functions of text from peers."""

from mitm_gateway.text.short_cache import MAX_CACHED, MAX_CACHED_LENGTH, remember_short


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


def test_a_bounded_number_of_texts_is_remembered() -> None:
    remembered = remember_short(str.upper)
    for number in range(3 * MAX_CACHED):
        remembered(str(number))
        assert len(remembered.__self__) <= MAX_CACHED  # type: ignore[attr-defined]
