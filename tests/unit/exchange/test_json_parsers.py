"""Parsers of request bodies, which are used again for sizes that have come before."""

from mitm_gateway.exchange.json_parsers import MAX_IDLE, SMALL_BYTES, Parsers

MB = 1 << 20


def test_small_bodies_share_one_parser() -> None:
    parsers = Parsers(object)
    assert parsers.for_size(1) is parsers.for_size(SMALL_BYTES)


def test_a_parser_for_large_bodies_is_kept_from_the_second_one_on() -> None:
    parsers = Parsers(object)
    once, kept = parsers.for_size(10 * MB), parsers.for_size(10 * MB)
    assert once is not kept
    assert parsers.for_size(10 * MB) is kept
    assert parsers.for_size(MB) is kept


def test_one_larger_body_leaves_the_parser_that_is_kept() -> None:
    parsers = Parsers(object)
    kept = [parsers.for_size(MB) for _ in range(2)][1]
    assert parsers.for_size(9 * MB) is not kept
    assert parsers.for_size(MB) is kept


def test_a_large_parser_is_dropped_when_only_small_bodies_come() -> None:
    parsers = Parsers(object)
    kept = [parsers.for_size(10 * MB) for _ in range(2)][1]
    for _ in range(MAX_IDLE - 1):
        parsers.for_size(1000)
    assert parsers.for_size(10 * MB) is kept
    for _ in range(MAX_IDLE):
        parsers.for_size(1000)
    assert parsers.for_size(10 * MB) is not kept
