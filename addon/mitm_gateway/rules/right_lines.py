"""The right line for a misplaced key, a key of another tool, or a value of the wrong kind."""

from ..text.redact import normal_name
from .problems import Loc

AUTH = "auth: {scheme: bearer, credential: NAME}"
_HEADERS, _BODY = "headers: {set: {NAME: VALUE}}", "body: {remove: [KEY]}"
_MODELS, _UPSTREAM = "models: {map: {NAME: NAME}}", "upstream: https://…"
_BESIDE, _AT_TOP = 'it beside "match", not inside', "it at the top of the file, not in a rule"
_IN_RULE = 'it in an entry of "rules"'

# Level; words without case and hyphens; the key that they mean there, if any; the right line.
_SLIPS: tuple[tuple[str, str, str, str], ...] = (
    ("top", "match upstream auth headers query beta body models respond preset name", "rules", _IN_RULE),
    ("rule", "url uri target to destination dest backend endpoint server address proxypass forwardto baseurl apibase "
             "apibaseurl apiurl cluster route upstreamurl service", "upstream", _UPSTREAM),
    ("rule", "apikey token key secret credential scheme authorization authentication authtoken authscheme bearer",
     "auth", AUTH),
    ("rule", "host hosts hostname domain domains", "match", "match: {host: NAME}"),
    ("rule", "path paths prefix location pathprefix", "match", "match: {host: NAME, path: /v1/**}"),
    ("rule", "method methods", "match", "match: {host: NAME, method: POST}"),
    ("rule", "header requestheaders setheaders addheaders extraheaders customheaders proxysetheader", "headers",
     _HEADERS),
    ("rule", "removeheaders hideheaders", "headers", "headers: {remove: [NAME]}"),
    ("rule", "model modelmap modelmapping modelaliases aliases modelname map mapping default restore", "models", _MODELS),
    ("rule", "params dropparams removefields", "body", _BODY),
    ("rule", "betas", "beta", "beta: {drop: [NAME]}"),
    ("rule", "credentials unmatched version", "", _AT_TOP),
    ("match", "auth upstream query beta body respond preset", "", _BESIDE),
    ("match", "url uri domain domains hostname server authority address", "host", "host: NAME"),
    ("match", "port ports", "host", "host: NAME:PORT"),
    ("match", "headers", "header", "header: {NAME: VALUE}"),
    ("match", "models modelname", "model", "model: NAME"),
    ("match", "prefix location route paths", "path", "path: /v1/**"),
    ("credential", "value token key secret password apikey", "env", "env: VARIABLE (the file holds no secrets)"),
    ("credential", "var variable environment enviroment envvar envkey name", "env", "env: VARIABLE"),
    ("credential", "cmd exec helper script shell program", "command", "command: [PROGRAM, ARGUMENT]"),
    ("credential", "path filename", "file", "file: PATH"),
    ("credential", "profile", "aws", "aws: PROFILE"),
    ("credential", "interval refresh expires", "ttl", "ttl: 5m"),
    ("auth", "type kind method mode", "scheme", "scheme: bearer"),
    ("auth", "key token secret value apikey env variable", "credential", "credential: NAME"),
    ("auth", "header headername", "scheme", "scheme: header, name: HEADER"),
    ("auth", "bearer basic xapikey", "scheme", AUTH),
    ("headers", "delete unset hide", "remove", "remove: [NAME]"),
    ("headers", "append", "add", "add: {NAME: VALUE}"),
    ("headers", "replace overwrite", "set", "set: {NAME: VALUE}"),
    ("body", "delete unset", "remove", "remove: [KEY]"),
    ("models", "aliases mapping rename names", "map", "map: {NAME: NAME}"),
    ("models", "fallback otherwise", "default", "default: NAME"),
    ("beta", "remove delete", "drop", "drop: [NAME]"),
)  # fmt: skip


_BY_WORD = {(level, word): slip for level, words, *slip in _SLIPS for word in words.split()}
# The right form of a part that is of the wrong kind.
_PARTS = {
    "match": "match: {host: NAME}",
    "auth": AUTH,
    "headers": _HEADERS,
    "query": "query: {set: {NAME: VALUE}}",
    "beta": "beta: {drop: [NAME]}",
    "body": _BODY,
    "models": _MODELS,
    "respond": "respond: {models: true}",
    "set": "set: {NAME: VALUE}",
    "add": "add: {NAME: VALUE}",
    "map": "map: {NAME: NAME}",
    "rename": "rename: {NAME: NAME}",
}


def level_of(loc: Loc) -> str:
    """Return the kind of mapping at a path: "top", "credential", "rule" or the part of a rule; empty for any other."""
    match loc:
        case ():
            return "top"
        case ("credentials", _):
            return "credential"
        case ("rules", int()):
            return "rule"
        case ("rules", int(), str() as part):
            return part
        case _:
            return ""


def slip(loc: Loc, key: str) -> tuple[str, str]:
    """Return the key that a word from elsewhere means in the mapping at a path, and the right line; both may be empty."""
    means, right = _BY_WORD.get((level_of(loc), normal_name(key)), ("", ""))
    return means, right


def right_form(loc: Loc) -> str:
    """Return the form of a mapping, for a value of another kind in its place; empty if there is none."""
    match loc:
        case ("rules",):
            return ', with "- " before each rule'
        case ("rules", int()):
            return " such as {name: NAME, match: {host: NAME}}"
        case ("rules", int(), *_, str() as part) if part in _PARTS:
            return f" such as {_PARTS[part]}"
        case ("credentials",):
            return " such as {NAME: {env: VARIABLE}}"
        case ("credentials", str() as name):
            return f" such as {name}: {{env: VARIABLE}}" if name.isidentifier() else ""
        case _:
            return ""
