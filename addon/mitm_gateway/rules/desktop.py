"""Claude Desktop's third-party-inference keys as a rules file."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..text.redact import Secret
from ..wire.addresses import Upstream
from .cross_checks import secured
from .document import Document
from .fields import parse_upstream
from .nodes import shown, type_name
from .problems import Mistake, Problem, RulesError, did_you_mean, in_file_order, nearest
from .ruleset import RuleSet
from .schema import Credential, Rule

PROVIDER_KEY = "inferenceProvider"
API_HOST = "api.anthropic.com"
_CREDENTIAL = "gateway"
SCHEMES = ("bearer", "x-api-key")
# Desktop's own default life of a helper's value.
_HELPER_TTL_S = 3600.0
_HELPER_TIMEOUT_S = 60.0
_PRESETS = {
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "mantle": "bedrock-mantle",
    "vertex": "vertex",
    "foundry": "azure-foundry",
}
_KNOWN_KEYS = (
    "inferenceProvider", "inferenceGatewayBaseUrl", "inferenceGatewayApiKey", "inferenceGatewayAuthScheme",
    "inferenceCustomHeaders", "inferenceGatewayHeaders", "inferenceModels", "inferenceCredentialHelper",
    "inferenceCredentialHelperTtlSec", "inferenceCredentialHelperTimeoutSec", "inferenceCredentialKind",
    # Without meaning for a gateway.
    "inferenceCredentialHelperSilentRefreshEnabled", "inferenceMaxTokensPerWindow", "inferenceSessionLifetimeSec",
    "inferenceStreamIdleTimeoutSec", "inferenceTokenWindowHours",
)  # fmt: skip
# The older name first: the newer one wins.
_HEADER_KEYS = ("inferenceGatewayHeaders", "inferenceCustomHeaders")
_PREFIX = "inference"
# A misspelt key of ours begins like this; other unknown keys belong to a later release of Desktop.
_OUR_PREFIXES = ("inferenceGateway", "inferenceCustom", "inferenceModels", "inferenceCredentialHelper")
_OTHER_PROVIDERS = (
    "inferenceAnthropic", "inferenceBedrock", "inferenceMantle", "inferenceVertex", "inferenceFoundry",
)  # fmt: skip


def is_desktop(data: object) -> bool:
    """Return whether a file contains Desktop's keys instead of rules."""
    return isinstance(data, dict) and PROVIDER_KEY in data


def parse_desktop(document: Document, problems: list[Problem]) -> RuleSet:
    """Return the one rule that Desktop's keys describe. Raises RulesError with every problem."""
    reading = _Desktop(document)
    ruleset = reading.read()
    found = in_file_order([*problems, *reading.problems])
    if found or ruleset is None:
        raise RulesError(found)
    return ruleset


class _Desktop:
    """One reading of a Desktop file."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._data: dict[str, Any] = document.data
        self.problems: list[Problem] = []

    def _add(self, key: str, text: str, *, at_key: bool = False) -> None:
        pos = self._document.pos_of(Mistake((key,), text, at_key))
        self.problems.append(Problem(self._document.file, pos, text))

    def _add_fault(self, key: str, fault: str) -> None:
        self._add(key, f'"{key}" {fault}')

    def read(self) -> RuleSet | None:
        self._check_keys()
        provider = self._data[PROVIDER_KEY]
        if provider != "gateway":
            self._other_provider(provider)
            return None
        url, credential = self._url(), self._credential()
        scheme = self._scheme()
        headers, models = self._headers(), self._models()
        if self.problems or url is None or credential is None:
            return None
        try:
            return one_rule(
                "desktop", url, scheme, credential, headers=headers, models=models, document=self._document
            )
        except ValidationError as fault:
            # Only the headers have not been checked before.
            key = next(key for key in _HEADER_KEYS if key in self._data)
            for error in fault.errors(include_url=False, include_input=False):
                self._add_fault(key, _reason(str(error.get("ctx", {}).get("error", "is not valid"))))
            return None

    def _check_keys(self) -> None:
        # All begin alike, so only the rest shows whether two are nearly the same.
        endings = [key.removeprefix(_PREFIX) for key in _KNOWN_KEYS]
        for key in self._data:
            if not key.startswith(_PREFIX) or key in _KNOWN_KEYS or key.startswith(_OTHER_PROVIDERS):
                continue
            if key.startswith(_OUR_PREFIXES) or nearest(key.removeprefix(_PREFIX), endings):
                self._add(key, f"unknown key {shown(key)}{did_you_mean(key, _KNOWN_KEYS)}", at_key=True)
        if "rules" in self._data:
            text = f'"rules" and "{PROVIDER_KEY}" exclude each other; expected one of them'
            self._add("rules", text, at_key=True)

    def _other_provider(self, provider: object) -> None:
        fault = 'is not known; expected "gateway"'
        if isinstance(provider, str) and provider in _PRESETS:
            preset = _PRESETS[provider]
            fault = f'is "{provider}", which is not a gateway; use a rule with "preset: {preset}"'
        self._add_fault(PROVIDER_KEY, fault)

    def _text(self, key: str) -> str | None:
        value = self._data.get(key)
        if isinstance(value, str) and value:
            return value
        if key in self._data:
            self._add_fault(key, f"is {type_name(value) if value != '' else 'empty'}; expected text")
        return None

    def _url(self) -> str | None:
        key = "inferenceGatewayBaseUrl"
        url = self._text(key)
        if key not in self._data:
            self._add(PROVIDER_KEY, f'provider "gateway" has no "{key}"; expected the address of the gateway')
        if url is not None and (fault := url_fault(url)):
            self._add_fault(key, fault)
        return url

    def _scheme(self) -> str:
        key = "inferenceGatewayAuthScheme"
        scheme = str(self._data.get(key, "bearer"))
        if scheme not in SCHEMES:
            hint = did_you_mean(scheme, SCHEMES)
            self._add_fault(key, f"is not known; expected one of {', '.join(SCHEMES)}{hint}")
        return scheme

    def _credential(self) -> Credential | None:
        helper, key = self._text("inferenceCredentialHelper"), self._text("inferenceGatewayApiKey")
        kind = self._data.get("inferenceCredentialKind")
        if helper is not None and kind != "static":
            if not helper.startswith("/"):  # otherwise the proxy's working directory would decide what runs
                fault = 'is not an absolute path; expected a form such as "/usr/local/bin/helper"'
                self._add_fault("inferenceCredentialHelper", fault)
            ttl = self._seconds("inferenceCredentialHelperTtlSec", _HELPER_TTL_S)
            timeout = self._seconds("inferenceCredentialHelperTimeoutSec", _HELPER_TIMEOUT_S)
            return Credential.model_validate({"command": [helper], "ttl": ttl, "timeout": timeout})
        if key is not None and kind in (None, "static"):
            return Credential.literal(Secret(key))
        if not self.problems:
            self._add(
                PROVIDER_KEY,
                'the file has no key; expected "inferenceGatewayApiKey" or "inferenceCredentialHelper"',
            )
        return None

    def _seconds(self, key: str, default: float) -> str:
        """Return a number of seconds as a duration of a rules file."""
        try:
            seconds = float(self._data.get(key, default))
        except (TypeError, ValueError):
            seconds = 0
        if not 1 <= seconds <= 86_400 * 365:
            self._add_fault(key, "is not a number of seconds; expected at least 1")
            seconds = default
        return f"{seconds:.0f}s"

    def _structured(self, key: str) -> Any:
        """Return a value that the store of the operating system keeps as JSON text."""
        value = self._data.get(key)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return json.loads(value)
        return value

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for key in _HEADER_KEYS:
            value = self._structured(key)
            if isinstance(value, list):
                value = _from_lines(value)
            elif value is None:
                continue
            if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
                headers |= value
            else:
                self._add_fault(key, "is not a set of headers; expected a mapping of names to texts")
        return headers

    def _models(self) -> tuple[str, ...]:
        key = "inferenceModels"
        if (value := self._structured(key)) is None:
            return ()
        names = [_model_name(model) for model in value] if isinstance(value, list) else [None]
        if None in names:
            self._add_fault(key, 'is not a list of models; expected names, or mappings with "name"')
        return tuple(dict.fromkeys(name for name in names if name))


def _from_lines(lines: list[Any]) -> dict[str, str] | None:
    """Return the headers of "Name: Value" lines, as earlier releases of Desktop wrote them."""
    if not all(isinstance(line, str) and ":" in line for line in lines):
        return None
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _model_name(model: object) -> str | None:
    name = model.get("name") if isinstance(model, dict) else model
    return name.removesuffix("[1m]") if isinstance(name, str) and name else None


def one_rule(
    name: str,
    upstream: str,
    scheme: str,
    credential: Credential,
    *,
    headers: Mapping[str, str] | None = None,
    models: tuple[str, ...] = (),
    document: Document | None = None,
) -> RuleSet:
    """Return a rule set with one rule for Anthropic's API. Raises ValidationError."""
    rule = Rule.model_validate(
        {
            "name": name,
            "match": {"host": API_HOST, "path": "/v1/**"},
            "upstream": upstream,
            "auth": {"scheme": scheme, "credential": _CREDENTIAL},
            "headers": {"set": dict(headers or {})},
            "respond": {"models": bool(models), "head": True},
        }
    )
    file = document.file if document else name
    return RuleSet((rule,), {_CREDENTIAL: credential}, file=file, listed_models=models, document=document)


def _reason(text: str) -> str:
    """Return a validator's reason, without advice that is only about rules files."""
    return text.partition(";")[0] if '"credentials"' in text or "${" in text else text


def url_fault(url: str) -> str | None:
    """Return why a key must not be sent to this address, or None."""
    try:
        upstream = Upstream.parse(url)
        parse_upstream(url)
    except ValueError as fault:
        return _reason(str(fault))
    if upstream.is_private:
        return None
    return f"would send the key over plain http; expected {secured(upstream)}"
