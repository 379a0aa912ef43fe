"""Tables of small cases that one test goes through: collecting and reporting each alone takes longer than checking it."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

_SHOWN = 500
_FAILURES = (Exception, pytest.fail.Exception, BaseExceptionGroup)


def table(
    names: str | tuple[str, ...], rows: Iterable[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Call a test with each row, as `parametrize` does, but as one test; its failure lists every row that fails."""
    columns = (names,) if isinstance(names, str) else names
    cases = [dict(zip(columns, (row,) if isinstance(names, str) else row, strict=True)) for row in rows]
    assert cases, "a table without rows proves nothing"

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def each(**fixtures: Any) -> None:
            failures: list[BaseException] = []
            for case in cases:
                try:
                    test(**fixtures, **case)
                except _FAILURES as failure:
                    failure.add_note(f"row: {repr(case)[:_SHOWN]}")
                    failures.append(failure)
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {len(cases)} rows fail", failures)

        signature = inspect.signature(test)
        fixtures = [one for name, one in signature.parameters.items() if name not in columns]
        vars(each)["__signature__"] = signature.replace(parameters=fixtures)
        return each

    return decorate
