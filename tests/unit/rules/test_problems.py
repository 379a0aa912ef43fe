"""Problems and suggestions."""

from mitm_gateway.rules.problems import Pos, Problem, RulesError, did_you_mean, in_file_order, nearest
from support.table import table


def test_a_problem_is_one_line_with_a_position() -> None:
    assert str(Problem("rules.yaml", Pos(12, 5), "unknown key")) == "rules.yaml:12:5: unknown key"
    assert str(Problem("rules.yaml", None, "there is no such file")) == "rules.yaml: there is no such file"


def test_the_error_contains_every_problem() -> None:
    problems = [Problem("f", Pos(1, 1), "a"), Problem("f", Pos(2, 1), "b")]
    error = RulesError(iter(problems))
    assert error.problems == tuple(problems)
    assert str(error) == "f:1:1: a\nf:2:1: b"


def test_problems_are_in_file_order_without_duplicates() -> None:
    whole, second, tenth = (Problem("f", pos, "a") for pos in (None, Pos(2, 9), Pos(10, 1)))
    other = Problem("f", Pos(2, 9), "b")
    assert in_file_order([tenth, second, other, whole, second]) == [whole, second, other, tenth]


@table(
    ("word", "expected"),
    [
        ("upsteam", ' (did you mean "upstream"?)'),
        ("UPSTREAM", ' (did you mean "upstream"?)'),
        ("hots", ' (did you mean "host"?)'),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_word_is_suggested(word: str, expected: str) -> None:
    assert did_you_mean(word, ["upstream", "host", "headers"]) == expected


def test_a_suggestion_keeps_its_spelling() -> None:
    assert nearest("inferencemodels", ["inferenceModels"]) == "inferenceModels"


def test_a_long_text_is_not_a_misspelt_word() -> None:
    assert nearest("host" * 50_000, ["host"]) is None
