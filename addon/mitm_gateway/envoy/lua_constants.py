"""Everything that the Lua filter and the addon must agree on, written into the filter from the addon's modules."""

import re
import sys
from collections.abc import Mapping
from typing import Any, get_args

from ..exchange import (
    body_error,
    client_keys,
    form_body,
    guard,
    json_body,
    json_edits,
    json_models,
    json_scanner,
    local_answers,
    plan,
    response_plan,
    restore_model,
    web_pages,
    websocket,
)
from ..llm import body_kind, usage
from ..llm.apis import APIS, OTHER, STOP_REASONS, TOKENS, Api, Form, Place
from ..llm.calls import ENDPOINTS, Endpoint, interleaved
from ..llm.errors import error_body, error_headers
from ..llm.session import AGENT_HEADERS, SESSION_HEADERS
from ..text import bounded_json, redact
from ..text.echoes import MAX_DECODINGS
from ..text.printable import MAX_NAME
from ..wire import aws_eventstream, sse
from ..wire.refusal import Refusal
from ..wire.request import DOUBLED_PATH
from . import refusals

LUA = "mitm_gateway"
# The filter tells the routes in request headers of this prefix; early in the chain they are removed from the client's.
HEADER_PREFIX = "x-mitm-gateway-"
PATH, MODEL, KEY, DONE = (f"{HEADER_PREFIX}{name}" for name in ("path", "model", "moved", "done"))
# The counts in the access log, with the names of `gateway_log`.
LOGGED_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
# The names that a client gives in its headers, as keys of the log; the first header with a plain value counts.
LOGGED_NAMES = {"session": SESSION_HEADERS, "agent": AGENT_HEADERS}
MAX_LOGGED_NAME = 128
# Python's own reader refuses at about this depth.
_MAX_DEPTH = 990
_LAST_BLANK = 0x3000
_STATUSES = (400, 401, 403, 413, 426, 502)
# Takes the place of a reason in an error.
_REASON = "\x00"
# The distinct places of models in requests; Lua counts them from 1.
_PLACES = tuple(dict.fromkeys(api.request for api in (OTHER, *APIS)))


def _answers(api: Api) -> tuple[tuple[Place, ...], bool, bool]:
    """Return the places of models in responses, and whether they are JSON Lines, and models resources."""
    return api.response, api.is_json_lines, api.has_resource_names


# The distinct kinds of responses.
_RESPONSES = tuple(dict.fromkeys(map(_answers, (OTHER, *APIS))))
_ANSWERED = tuple(
    dict.fromkeys([OTHER.response, restore_model.JSON_PLACES, *(places for places, *_ in _RESPONSES)])
)
_PUNCTUATION = re.compile(r"([^A-Za-z0-9/_])")


def _counts(within: str, names: Mapping[str, usage.Count]) -> Mapping[str, Any]:
    """Return the places of the counts in an object of this name, and the members on the way to them."""
    places = {
        count: [[[first, *rest] for first, rest in summed] for summed in names[count]]
        for count in LOGGED_TOKENS
        if count in names
    }
    members = [place[0] for apis in places.values() for summed in apis for place in summed]
    return {"within": within, "places": places, "members": dict.fromkeys(members, True)}


def _usage_marks() -> list[list[str]]:
    """Return texts, one of which occurs in each event with counts, an error or an end, and the pattern around each."""
    counts = [[f'"{name}"', f'"{name}"%s*:%s*{{'] for name in dict.fromkeys(each.within for each in TOKENS)]
    stops = [[f'"{name}"', f'"{name}"%s*:%s*"'] for *_, name in STOP_REASONS]
    kinds = [['"object"', f'"object"%s*:%s*"{kind}"'] for kind in usage.WITH_STATUS] + [['"interaction"']]
    return [['"error"'], *counts, *stops, *kinds]


def _error(form: Form, status: int) -> Mapping[str, Any]:
    refusal = Refusal(status, _REASON)
    before, after = error_body(refusal, form).decode().split("\\u0000")
    return {"before": before, "after": after, "headers": error_headers(refusal, form)}


def _endpoint(endpoint: Endpoint) -> Mapping[str, Any]:
    # Lua captures the places of the model instead of its text.
    wildcards = [mark.replace("(", "()").replace("+)", "+()") for mark in endpoint.wildcards]
    literals = [_PUNCTUATION.sub(r"%\1", text) for text in endpoint.literals]
    return {
        "start": endpoint.start,
        "method": endpoint.method,
        **api_data(endpoint.api),
        "pattern": f"^{interleaved(literals, wildcards)}$" if wildcards else None,
    }


def api_data(api: Api) -> Mapping[str, Any]:
    """Return the filter's share of an API."""
    return {
        "form": api.form,
        "counts_tokens": api.local == "count_tokens",
        "query": api.query,
        "tree": _PLACES.index(api.request) + 1,
        "response": _RESPONSES.index(_answers(api)) + 1,
        "is_about_earlier": api.is_about_earlier,
        "has_resource_names": api.has_resource_names,
        "takes_files": api.takes_files,
    }


def _response(answers: tuple[tuple[Place, ...], bool, bool]) -> Mapping[str, Any]:
    places, is_lines, has_resource_names = answers
    json_places = restore_model.JSON_PLACES if places == OTHER.response else places
    return {
        "sse": _ANSWERED.index(places) + 1,
        "json": _ANSWERED.index(json_places) + 1,
        "is_lines": is_lines,
        "has_resource_names": has_resource_names,
    }


def _response_tree(places: tuple[Place, ...]) -> Mapping[str, Any]:
    # Without these no event has a model, not even one whose key has escapes, and its lines end in a single byte.
    suspects = [f'"{name}"' for name in json_scanner.names_in(places)]
    return {**_node(json_models.tree_of(places)), "suspects": [*suspects, "\\u00", "\r"]}


def _tree(places: tuple[Place, ...]) -> Mapping[str, Any]:
    """Return places of models as a tree, with the first bytes of the keys at the top."""
    node = json_models.tree_of(places)
    return {**_node(node), "first_bytes": {ord(key[0]): True for key in node.below if key}}


def _node(node: json_models.PlaceNode) -> Mapping[str, Any]:
    below = {key: _node(each) for key, each in node.below.items() if key is not None}
    each = _node(node.below[None]) if None in node.below else None
    return {
        "is_model": node.is_model,
        "is_main": node.is_main,
        "is_gated": node.is_gated,
        "each": each,
        "below": below or None,
    }


# The table `CONSTANTS` of the filter.
CONSTANTS: dict[str, Any] = {
    "notes": LUA,
    "path_header": PATH,
    "model_header": MODEL,
    "key_header": KEY,
    "done_header": DONE,
    "wide_blanks": [chr(code) for code in range(0x80, _LAST_BLANK + 1) if chr(code).isspace()],
    # Refusals.
    "reasons": {
        **{reason.name.lower(): reason.value for reason in body_error.Reason},
        "trace": guard.TRACE_REFUSED,
        "cross_site": guard.CROSS_SITE,
        "long_path": guard.LONG_PATH,
        "odd_path": guard.ODD_PATH,
        "two_readings": guard.TWO_READINGS,
        "no_key_to_move": plan.NO_KEY_TO_MOVE,
        "foreign_key": plan.FOREIGN_KEY,
        "several_models": plan.SEVERAL_MODELS,
        "different_rules": plan.DIFFERENT_RULES,
        "web_page": refusals.WEB_PAGE.reason,
        "client_key": refusals.CLIENT_KEY.reason,
        "compressed": refusals.COMPRESSED.reason,
        "socket": websocket.UNREADABLE_SOCKET,
        "no_body": refusals.NO_BODY.reason,
        "fault": refusals.FAULT.reason,
    },
    "errors": {form: {status: _error(form, status) for status in _STATUSES} for form in get_args(Form)},
    # APIs, and the models in requests.
    "endpoints": list(map(_endpoint, ENDPOINTS)),
    "other": api_data(OTHER),
    "trees": [_tree(places) for places in _PLACES],
    "max_steps": json_models.MAX_STEPS,
    "max_names": json_models.MAX_NAMES,
    "max_name_bytes": json_models.MAX_NAME_BYTES,
    "max_part_headers": form_body.MAX_HEADERS,
    "max_fields": form_body.MAX_FIELDS,
    "max_field_name": form_body.MAX_FIELD_NAME,
    "max_field_json": form_body.MAX_FIELD_JSON,
    "resources": dict.fromkeys(json_models.RESOURCES, True),
    "other_types": json_body.OTHER_TYPES,
    "utf16_and_32": json_body.UTF16_AND_32,
    # Admission, and keys.
    "max_path_bytes": guard.MAX_PATH_CHARACTERS,
    "preflight": {
        "access-control-allow-methods": web_pages.METHODS,
        "access-control-max-age": str(web_pages.MAX_AGE_S),
        "vary": "Origin",
    },
    "own_sites": guard.OWN_SITES,
    "usual_slots": client_keys.USUAL_SLOTS,
    "protocol_header": client_keys.PROTOCOL,
    "max_keys": guard.MAX_KEYS,
    "anthropic_key": plan.ANTHROPIC_KEY,
    "placeholders": sorted(redact.PLACEHOLDERS),
    "key_names": sorted(redact.KEY_NAMES),
    "key_endings": redact.KEY_ENDINGS,
    "api_key_names": sorted(redact.API_KEY_NAMES),
    "api_key_endings": redact.API_KEY_ENDINGS,
    "page_token_endings": redact.PAGE_TOKEN_ENDINGS,
    "max_decodings": MAX_DECODINGS,
    "doubled_path": DOUBLED_PATH,
    # Edits of bodies, and bounds of JSON.
    "token_betas": plan.TOKEN_BETAS,
    "betas": json_edits.BETAS,
    "beta_parents": json_edits.BETA_PARENTS,
    "max_depth": _MAX_DEPTH,
    "max_members": json_body.MAX_MEMBERS,
    "max_digits": sys.int_info.default_max_str_digits,
    "growth": {
        "small_text": bounded_json.SMALL_TEXT,
        "max": bounded_json.MAX_GROWTH,
        "container": bounded_json.CONTAINER_BYTES,
        "member": bounded_json.MEMBER_BYTES,
        "string": bounded_json.STRING_BYTES,
        "entry": bounded_json.ENTRY_BYTES,
        "usual_members": bounded_json.USUAL_MEMBERS,
        "max_values": bounded_json.MAX_BODY_VALUES,
        "array_values": bounded_json.ARRAY_VALUES,
        "many_values": bounded_json.MAX_VALUES,
        "many_backslashes": local_answers.MAX_BACKSLASHES,
    },
    # Texts of a client in the access log.
    "logged_names": LOGGED_NAMES,
    "max_logged_name": MAX_LOGGED_NAME,
    "max_shown_name": MAX_NAME,
    "key_marks": redact.KEY_MARKS,
    "mask": redact.MASK,
    # Estimates of tokens.
    "estimated_members": local_answers.ESTIMATED_MEMBERS,
    "count_keys": local_answers.COUNT_KEYS,
    "image_characters": local_answers.IMAGE_CHARACTERS,
    "characters_per_token": local_answers.CHARACTERS_PER_TOKEN,
    # Responses: restored names and token counts.
    "max_held_bytes": json_scanner.MAX_HELD_BYTES,
    "max_key_bytes": json_scanner.MAX_KEY_BYTES,
    "responses": list(map(_response, _RESPONSES)),
    "response_trees": list(map(_response_tree, _ANSWERED)),
    "event_fields": [field.decode() for field in body_kind.FIELDS],
    "frames_type": aws_eventstream.CONTENT_TYPE,
    "never_json": response_plan.NEVER_JSON,
    "max_json_bytes": usage.MAX_JSON_BYTES,
    "max_tokens": usage.MAX_TOKENS,
    "max_frame_bytes": usage.MAX_FRAME_BYTES,
    "max_frame": aws_eventstream.MAX_FRAME,
    "frame_values": aws_eventstream.FIXED,
    "counts": [_counts(*item) for item in reversed(usage.PLACES_OF_COUNTS.items())],
    "logged_tokens": LOGGED_TOKENS,
    "stop_reasons": STOP_REASONS,
    "with_status": dict.fromkeys(usage.WITH_STATUS, True),
    "unfinished": dict.fromkeys(usage.UNFINISHED, True),
    "usage_marks": _usage_marks(),
    "max_line_bytes": sse.MAX_LINE_BYTES,
}
