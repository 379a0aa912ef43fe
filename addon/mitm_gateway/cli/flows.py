"""`flows`: read a recording: list it, show a conversation, compare two requests, convert it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..llm import conversation
from ..recordings import cases, json_lines, listing, page, sessions, show
from ..rules.load import load
from ..rules.read_file import FileError, open_file
from ..text.printable import counted, one_line
from .common import FAULT, OK, Subparsers, add_rules_option, print_fault, say, terminal_width, wrong_usage
from .rules_source import announced_rules
from .saving import whole_file

if TYPE_CHECKING:
    from ..mitm.recorded_flows import Recording
    from ..recordings.recorded import Recorded

# An error about a wrong number names this many that exist.
_MOST_NUMBERS = 8
_EXAMPLES = """\
examples:
  mitm-gateway run --save talk.mitm claude      record a session
  mitm-gateway flows talk.mitm                  one line for each request
  mitm-gateway flows talk.mitm --show 3         request 3 and its response
  mitm-gateway flows talk.mitm --diff 2 3       changes from 2 to 3
  mitm-gateway flows talk.mitm --html talk.html
  mitm-gateway flows talk.mitm --cases --rules rules.yaml --against new.yaml

A recording is a file of mitmproxy (-w, --save) or a HAR file. Keys are masked in every output, including
those that a mitmproxy without the gateway recorded."""


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "flows",
        run=run,
        help="list, show and convert recorded requests",
        # Python 3.11 writes the options that exclude each other on one line.
        usage="%(prog)s FILE [options]",
        description="Read a recording of mitmproxy, or a HAR file.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="recording of mitmproxy, or HAR file")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--show", type=int, metavar="N", help="print request N and its response in full")
    how.add_argument(
        "--html", type=Path, metavar="OUT", help="write one HTML file without external resources"
    )
    how.add_argument(
        "--diff", type=int, nargs=2, metavar=("A", "B"), help="print what changed from request A to request B"
    )
    how.add_argument("--jsonl", action="store_true", help="print one JSON object for each request")
    how.add_argument(
        "--cases",
        action="store_true",
        help="print the effect of the rules on the requests; the exit status is 1 if they refuse one",
    )
    add_rules_option(parser)
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="with --cases: print only the differences that these rules would make; the exit status is 1 if there are any",
    )
    parser.add_argument(
        "--session",
        nargs="?",
        const="",
        metavar="NAME",
        help="list the sessions; with the beginning of a name, use only the requests of that session",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the requests; the status is 1 if a part of the recording cannot be read."""
    if (arguments.rules or arguments.against) and not arguments.cases:
        return wrong_usage(f"{'--rules' if arguments.rules else '--against'} requires --cases")
    from ..mitm.recorded_flows import Recording
    from ..mitm.recording_file import RecordingError

    gc.freeze()  # the reader collects garbage often, and the modules are none
    recording, fault = Recording(arguments.file), None
    try:
        status = _print(arguments, recording)
    except RecordingError as found:
        fault, status = found, FAULT
    sys.stdout.flush()
    for note in recording.notes:
        say(f"{arguments.file}: {note}")
    if fault is not None:
        print_fault(f"mitm-gateway: {fault}")
    return status


def _print(arguments: argparse.Namespace, recording: Recording) -> int:
    requests, session = sessions.grouped(recording), arguments.session
    if session:
        requests = (each for each in requests if (each.session or "").startswith(session))
    if arguments.show is not None:
        width = terminal_width(sys.stdout, conversation.WIDTH)
        return _with_numbers(
            [arguments.show], session, requests, lambda request: [show.whole(request, width)]
        )
    if arguments.diff is not None:
        return _with_numbers(arguments.diff, session, requests, sessions.comparison)
    if arguments.html is not None:
        return _write_page(arguments.html, arguments.file.name, requests, recording)
    if arguments.cases:
        return _judge(arguments, requests)
    if arguments.jsonl:
        return _print_lines(map(json_lines.line, requests))
    if session == "":
        return _print_lines(sessions.totals(requests))
    lines = map(listing.line, requests)
    first = list(islice(lines, 1))  # no heading above a file that cannot be read
    return _print_lines(chain([listing.HEADING], first, lines))


def _judge(arguments: argparse.Namespace, requests: Iterable[Recorded]) -> int:
    """Print the effect of the rules on the requests, or the differences that other rules would make."""
    rules = announced_rules(arguments).ruleset
    other = load(arguments.against, os.environ) if arguments.against else None
    found = cases.cases(requests, rules, other)
    if other is None:
        _print_lines(cases.outcomes(found))
        return FAULT if any(case.is_refused for case in found) else OK
    _print_lines(cases.differences(found))
    differing = sum(case.count for case in found if case.differs)
    verb = "differs" if differing == 1 else "differ"
    total = counted(sum(case.count for case in found), "request")
    say(f"{differing} of {total} {verb} under {arguments.against}")
    return FAULT if differing else OK


def _print_lines(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    return OK


def _with_numbers(
    numbers: Sequence[int],
    session: str | None,
    requests: Iterable[Recorded],
    lines: Callable[..., Iterable[str]],
) -> int:
    """Print lines about the requests with these numbers."""
    found: dict[int, Recorded] = {}
    seen: list[int] = []
    for request in requests:
        seen.append(request.number)
        if request.number in numbers:
            found[request.number] = request
        if len(found) == len(set(numbers)):
            return _print_lines(lines(*(found[number] for number in numbers)))
    missing = next(number for number in numbers if number not in found)
    return wrong_usage(_missing(missing, seen, session))


def _missing(number: int, numbers: Sequence[int], session: str | None) -> str:
    """Return the sentence about a number that no request has; `numbers` are those that exist."""
    if not session:
        return f"there is no request {number}; expected a number from 1 to {len(numbers)}"
    if not numbers:
        return f'no session begins with "{one_line(session)}"; `flows FILE --session` lists the sessions'
    named = ", ".join(map(str, numbers[:_MOST_NUMBERS])) + (", …" if len(numbers) > _MOST_NUMBERS else "")
    word = "request" if len(numbers) == 1 else "requests"
    return f"request {number} is not in session {one_line(session)}…; it has {word} {named}"


def _write_page(out: Path, title: str, requests: Iterable[Recorded], recording: Recording) -> int:
    """Write the page; a remark on it tells if the recording could not be read to its end."""
    from ..mitm.recording_file import RecordingError

    if out.exists() and not _is_page(out):
        return wrong_usage(f"{out}: the file exists, and this command did not write it; name another one")
    whole, remarks, fault, is_empty = page.Page(title), [], None, True
    with whole_file(out) as to:
        to.write(whole.start())
        try:
            for request in requests:
                to.write(whole.request(request))
                is_empty = False
        except RecordingError as found:
            if is_empty:
                raise
            fault, remarks = found, [str(found)]
        to.write(whole.end([*recording.notes, *remarks]))
    if fault is not None:
        raise fault
    say(f"{out}: written")
    return OK


def _is_page(path: Path) -> bool:
    with contextlib.suppress(FileError), open_file(path) as file:
        return file.read(len(page.START)) == page.START.encode()
    return False
