"""A file with prices of models, and its mistakes with file, line and column."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from ...rules.document import Document, read_document
from ...rules.fields import Model, as_tuple, keys_of
from ...rules.nodes import MAX_BYTES, shown, type_name
from ...rules.patterns import Glob
from ...rules.problems import Loc, Problem, RulesError, did_you_mean, in_file_order, nearest
from ...rules.read_file import FileError, read_regular_file

_EXPECTED = 'a mapping with "models"'
_FORMS: dict[Loc, str] = {
    (): _EXPECTED,
    ("models",): "a mapping of model names, as in NAME: {input: 5, output: 25}",
    ("models", ""): "prices, as in {input: 5, output: 25}",
    ("models", "", "long"): "prices, as in {above: 200000, input: 10, output: 37.5}",
}
_AMOUNT = "US dollars per million tokens, such as 0.5"

Amount = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]


class _Amounts(Model):
    input: Amount
    output: Amount
    cache_read: Amount | None = None
    """For tokens read from the cache; the price of input if it is left out."""
    cache_write: Amount | None = None
    """For tokens written to the cache for the usual time; the price of input if it is left out."""
    cache_write_long: Amount | None = None
    """For tokens written for the longer time (Anthropic 1 h, OpenAI 12 h); unknown if it is left out."""


class LongPrice(_Amounts):
    """The prices of all tokens of a request whose prompt has more than `above` tokens."""

    above: Annotated[int, Field(gt=0)]


class Price(_Amounts):
    """The prices of one model, in US dollars per million tokens."""

    long: LongPrice | None = None

    def of(self, prompt_tokens: int) -> _Amounts:
        """Return the prices for a prompt of this length."""
        return self.long if self.long is not None and prompt_tokens > self.long.above else self


class PriceList(Model):
    """The content of a file of prices."""

    date: str | None = None
    """The day on which the prices were read."""
    sources: Texts = ()
    hosts: Texts = ()
    """The only hosts at which the prices apply; `*` stands for any text. All hosts if it is left out."""
    except_hosts: Texts = ()
    """Hosts at which they do not apply."""
    models: Mapping[str, Price]

    def find(self, model: str, host: str) -> Price | None:
        """Return the price of a model at a host; None if the list has none."""
        price = self.models.get(model)
        if (
            price is None
            or (self.hosts and not _covers(self.hosts, host))
            or _covers(self.except_hosts, host)
        ):
            return None
        return price


def _covers(globs: Sequence[str], host: str) -> bool:
    return any(Glob(glob).covers(host) for glob in globs)


def read_price_list(path: Path) -> PriceList:
    """Return the prices in a file. Raises RulesError with every mistake in it."""
    try:
        text = read_regular_file(path, MAX_BYTES)
    except FileError as fault:
        raise RulesError([Problem(str(path), None, str(fault))]) from None
    return parse_price_list(text, str(path))


def parse_price_list(text: bytes, file: str) -> PriceList:
    """Return the prices in a text; problems call it `file`. Raises RulesError with every mistake in it."""
    document, problems = read_document(text, file, _EXPECTED)
    if document is None or problems:
        raise RulesError(problems)
    try:
        return PriceList.model_validate(document.data)
    except ValidationError as fault:
        errors = fault.errors(include_url=False, include_input=False)
        raise RulesError(in_file_order(_problems(document, errors))) from None


def _problems(document: Document, errors: Sequence[ErrorDetails]) -> Iterator[Problem]:
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    misspelt = {(*loc[:-1], nearest(str(loc[-1]), _keys(loc[:-1]))) for loc in unknown}
    for error in errors:
        loc = error["loc"]
        match error["type"]:
            case "missing" if loc in misspelt:
                continue  # one fault, not two
            case "extra_forbidden":
                text = f"unknown key {shown(str(loc[-1]))}{did_you_mean(str(loc[-1]), _keys(loc[:-1]))}"
                yield Problem(document.file, document.key_pos(loc), text)
            case "missing":
                text = f'{_name(loc[:-1])} has no "{loc[-1]}"; expected {_form(loc[:-1])}'
                yield Problem(document.file, document.key_pos(loc[:-1]), text)
            case _:
                text = f"{_name(loc)} is {_value(document.value(loc))}; expected {_expected(loc)}"
                yield Problem(document.file, document.pos(loc), text)


def _keys(loc: Loc) -> tuple[str, ...]:
    model = PriceList if not loc else Price if len(loc) == 2 else LongPrice
    return keys_of(model)


def _form(loc: Loc) -> str:
    return _FORMS.get(_general(loc), _AMOUNT)


def _general(loc: Loc) -> Loc:
    return tuple("" if at == 1 else step for at, step in enumerate(loc))


def _expected(loc: Loc) -> str:
    match _general(loc):
        case ("date",) | ("hosts" | "except_hosts" | "sources", ""):
            return "text"
        case ("hosts" | "except_hosts" | "sources",):
            return "a list of texts"
        case (*_, "above"):
            return "a number of tokens, such as 200000"
        case _:
            return _form(loc)


def _name(loc: Loc) -> str:
    return shown(str(loc[-1])) if loc else "the file"


def _value(data: object) -> str:
    return f"{data:g}" if isinstance(data, int | float) and not isinstance(data, bool) else type_name(data)
