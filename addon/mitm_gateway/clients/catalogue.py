"""Client programs as dated data: how each of them is pointed at a gateway, with version, date and source."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from ..rules.document import packaged_files, parse
from ..rules.problems import did_you_mean

# Programs that are not listed get the variables of this file.
ANY: Final = "any"
# So do the clients that a shell starts, except for one key variable.
SHELL: Final = "shell"
# They start the program that is named by their first argument without a dash.
_RUNNERS = frozenset({"npx", "bunx", "uvx"})


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Setup(_Data):
    """How a program is pointed at the listener of one API; `{url}` is the listener's address."""

    url: Mapping[str, str] = {}
    arguments: tuple[str, ...] = ()
    # Placeholders, for rules that send the gateway's key instead of the client's.
    key: Mapping[str, str] = {}
    # Variables with the user's own keys, which are unset for such rules.
    unset: tuple[str, ...] = ()
    # Variables that name a file with this text, for settings that have no variable.
    files: Mapping[str, str] = {}
    # Placeholders for a client that signs requests, if the user has no credentials of this kind.
    fallback: Mapping[str, str] = {}
    # Variables that make the program use this API rather than another.
    switch: Mapping[str, str] = {}


class Client(_Data):
    """One client program, or a family of libraries."""

    name: str
    title: str
    # The names of its executables; empty for libraries.
    programs: tuple[str, ...] = ()
    # The names of its packages, for `npx` and `uvx`.
    packages: tuple[str, ...] = ()
    version: str
    date: str
    sources: tuple[str, ...]
    # Another client, whose APIs it uses as well.
    like: str | None = None
    # The APIs that it uses, by the names in `api_hosts`; the command in `prove` calls the first.
    apis: Mapping[str, Setup] = {}
    # Variables that it needs behind any gateway, such as those that switch WebSockets off.
    always: Mapping[str, str] = {}
    # The variables through which it trusts further authorities.
    ca: tuple[str, ...] = ()
    # Why its requests may bypass the gateway, and the remedy.
    bypass: str | None = None
    # Hosts of its sign-in, which no rule should cover.
    login: tuple[str, ...] = ()
    # A process that it leaves behind, with the settings of the run that started it.
    daemon: str | None = None
    # A command that sends one request.
    prove: str | None = None
    notes: tuple[str, ...] = Field(default=())

    @property
    def proved_api(self) -> str | None:
        """The API that the command in `prove` calls; None for a client without one."""
        return next(iter(self.apis), None)

    @property
    def takes_urls(self) -> bool:
        """True if variables or arguments can point it at a listener."""
        return any(setup.url or setup.arguments for setup in self.apis.values())


def names() -> tuple[str, ...]:
    """Return the names of all clients in alphabetical order."""
    return tuple(packaged_files(__package__))


@cache
def load(name: str) -> Client:
    """Return the data of one client. Raises KeyError for an unknown name."""
    file = packaged_files(__package__)[name]
    data = parse(file.read_bytes(), file.name).data
    like = load(data["like"]).apis if "like" in data else {}
    return Client.model_validate({**data, "name": name, "apis": {**like, **data.get("apis", {})}})


@cache
def base_url_variables() -> tuple[str, ...]:
    """Return the variables through which the clients take a base URL."""
    setups = (setup for client in map(load, names()) for setup in client.apis.values())
    return tuple(sorted({name for setup in setups for name in setup.url}))


def named(word: str) -> Client:
    """Return the client with this name, or with a program of this name. Raises ValueError for an unknown one."""
    if word in names():
        return load(word)
    if (client := _by_program(word)) is not None:
        return client
    programs = (program for name in names() for program in load(name).programs)
    hint = did_you_mean(word, [*names(), *programs]) or f"; expected one of {', '.join(names())}"
    raise ValueError(f'unknown client "{word}"{hint}')


def of_command(argv: Sequence[str]) -> tuple[Client, int]:
    """Return the client that a command starts, and where in it the client's own arguments begin."""
    program = _program(argv[0])
    if (client := _by_program(program)) is not None:
        return client, 1
    if program in _RUNNERS:
        words = [number for number, word in enumerate(argv) if number and not word.startswith("-")]
        if words and (client := _by_package(argv[words[0]])) is not None:
            return client, words[0] + 1
    return load(ANY), 1


def _program(path: str) -> str:
    name = PurePath(path).name
    return name.removesuffix(".exe").removesuffix(".cmd")


def _by_program(program: str) -> Client | None:
    return next((client for client in map(load, names()) if program in client.programs), None)


def _by_package(word: str) -> Client | None:
    package = word[:1] + word[1:].partition("@")[0]
    found = (client for client in map(load, names()) if package in (*client.packages, *client.programs))
    return next(found, None)
