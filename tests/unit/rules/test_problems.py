"""Problems and suggestions."""

from mitm_gateway.rules.problems import Pos, Problem, in_file_order, nearest


def test_problems_are_in_file_order_without_duplicates() -> None:
    whole, second, tenth = (Problem("f", pos, "a") for pos in (None, Pos(2, 9), Pos(10, 1)))
    other = Problem("f", Pos(2, 9), "b")
    assert in_file_order([tenth, second, other, whole, second]) == [whole, second, other, tenth]


def test_a_long_text_is_not_a_misspelt_word() -> None:
    assert nearest("host" * 50_000, ["host"]) is None
