"""Regular expressions take linear steps on the text of peers; steps are counted, seconds never."""

import ast
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.constants import PACKAGE
from support.counted_work import MAX_RATIO, ratio
from support.regex_steps import Steps, is_bounded, samples

pytestmark = pytest.mark.exhaustive
# Expressions with a bounded repeat look quadratic below its bound, and a quadratic part of others is small there. So only
# what is strictly linear needs no longer text.
SIZES, LINEAR = (24, 160, 640), 2.05
# The modules beside the packages, and those of each package.
PLACES = ["*.py", *sorted(f"{path.parent.name}/**/*.py" for path in PACKAGE.glob("*/__init__.py"))]
_SEARCHES = {"search", "sub", "subn", "finditer", "findall", "split"}


@dataclass(frozen=True)
class Expression:
    """A regular expression of the package, and the methods by which it is used."""

    name: str
    pattern: re.Pattern[Any]
    methods: frozenset[str]


@cache
def expressions(place: str) -> tuple[Expression, ...]:
    """Return every expression in these modules of the package, compiled at import or written into a call, once."""
    return tuple({(one.pattern, one.methods): one for one in _expressions(PACKAGE.glob(place))}.values())


def _expressions(paths: Iterable[Path]) -> Iterator[Expression]:
    for path in sorted(paths):
        if "import re\n" not in (code := path.read_text()):
            continue
        nodes = list(ast.walk(ast.parse(code)))
        uses = list(_uses(nodes))
        for name, method, line, pattern in uses:
            if name == "re" and pattern is not None and method in {*_SEARCHES, "match", "fullmatch"}:
                compiled: re.Pattern[Any] = re.compile(pattern)
                yield Expression(f"{path.name}:{line}", compiled, frozenset({method}))
        if any((name, method) == ("re", "compile") for name, method, *_ in uses):
            module = path.relative_to(PACKAGE).with_suffix("").parts
            yield from _compiled(".".join(["mitm_gateway", *module]), _imported(nodes), uses)


Use = tuple[str, str, int, str | bytes | None]


def _uses(nodes: Iterable[ast.AST]) -> Iterator[Use]:
    """Yield every attribute with its owner's last name, and each call of one with a text."""
    for node in nodes:
        match node:
            case ast.Attribute(ast.Name(owner) | ast.Attribute(_, owner), method):
                yield owner, method, node.lineno, None
            case ast.Attribute(_, method):
                yield "", method, node.lineno, None
            case ast.Call(
                ast.Attribute(ast.Name(owner), method), [ast.Constant(str() | bytes() as text), *_]
            ):
                yield owner, method, node.lineno, text


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    imports = (node for node in nodes if isinstance(node, ast.ImportFrom))
    return {name.asname or name.name for node in imports for name in node.names}


def _compiled(module: str, imported: set[str], uses: list[Use]) -> Iterator[Expression]:
    names = vars(importlib.import_module(module))
    for name, value in names.items():
        if name in imported:
            continue
        if isinstance(value, re.Pattern):
            methods = {method for owner, method, *_ in uses if owner == name}
        elif isinstance(getattr(value, "__self__", None), re.Pattern):
            methods = {value.__name__}
        else:  # a container, whose items have other names where they are used
            methods = {method for owner, method, *_ in uses if owner not in names} - {"split"}  # of `str`
        for pattern in _patterns(value):
            yield Expression(f"{module}.{name}", pattern, frozenset(methods))


def _patterns(value: Any) -> Iterator[re.Pattern[Any]]:
    match value:
        case re.Pattern():
            yield value
        case dict():
            for item in value.values():
                yield from _patterns(item)
        case tuple() | list():
            for item in value:
                yield from _patterns(item)
        case _:
            for attribute in ("__self__", "form"):
                if isinstance(pattern := getattr(value, attribute, None), re.Pattern):
                    yield pattern


_BOUNDED = 300


def hostile(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str]]:
    """Yield texts that make an expression work: a part that is sent once, and one that is repeated."""
    if is_bounded(pattern, _BOUNDED):
        return
    texts, characters = samples(pattern)
    few = list(dict.fromkeys(["x", *characters[:1], *characters[-2:]]))
    yield from (("", one + other) for one in few for other in ["", *few])
    longest = 20 if len(texts) < 4 else 6
    for start in dict.fromkeys(text[: end + 1] for text in texts for end in range(min(len(text), longest))):
        yield "", start
        yield from ((start, one) for one in few)


def steps(expression: Expression, text: str) -> int:
    counter = Steps(expression.pattern)
    if expression.methods & _SEARCHES:
        counter.find_all(text)
    elif "fullmatch" in expression.methods:
        counter.full_match(text)
    else:
        counter.match(text)
    return counter.count


def grows_linearly(
    work: Callable[[str], int], once: str, repeated: str, sizes: tuple[int, ...] = SIZES
) -> bool:
    *shorter, longest = sizes
    is_linear = any(ratio(work, once, repeated, size) <= LINEAR for size in shorter)
    return is_linear or ratio(work, once, repeated, longest) <= MAX_RATIO


@pytest.mark.parametrize("place", PLACES)
def test_expressions_take_linear_steps(place: str) -> None:
    for expression in expressions(place):
        for text in hostile(expression.pattern):
            assert grows_linearly(partial(steps, expression), *text), (expression, text)


@pytest.mark.parametrize(
    "pattern",
    [
        r"eyJ[A-Za-z0-9_-]{8,}\.",
        r"sk-[a-z]{8}+|eyJ[A-Za-z0-9_-]{8,}+\.",
        r"([a-z_][\w.]*): Extra",
        r"/models/([^/:]+(?:@[^/:]+)?):x",
        r"\s+$",
    ],
)
def test_expressions_that_are_not_linear_are_recognised(pattern: str) -> None:
    expression = Expression("", re.compile(pattern), frozenset({"search"}))
    texts = hostile(expression.pattern)
    # A short text is enough, as no bounded repeat in these ends before it.
    assert not all(grows_linearly(partial(steps, expression), *text, sizes=SIZES[:2]) for text in texts)


@given(st.data(), st.text(' -.:/\\"{}[],aekmodlsy19\n', max_size=30))
def test_steps_are_counted_on_the_matches_that_re_finds(data: st.DataObject, text: str) -> None:
    pattern = data.draw(st.sampled_from([one.pattern for one in expressions("**/*.py")]))
    real = text.encode() if isinstance(pattern.pattern, bytes) else text
    assert Steps(pattern).find_all(text) == [found.span() for found in pattern.finditer(real) if found[0]]
