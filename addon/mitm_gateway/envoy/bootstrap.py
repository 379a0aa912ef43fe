"""Envoy's bootstrap configuration and the files beside it."""

from typing import Any

import yaml

from ..exchange.guard import MAX_HEAD_BYTES
from ..llm.errors import error_body, error_headers
from ..rules.ruleset import RuleSet
from ..wire.refusal import Refusal
from .access_log import access_log, kept_for_log
from .clusters import PRESERVE_CASE, clusters, listener_of, secrets_of
from .export_options import Listener, Options
from .extension import extension, typed
from .header_edits import MUTATION, removal
from .lua_constants import DONE, HEADER_PREFIX, KEY, LUA, MODEL, PATH
from .lua_filter import lua
from .re2 import other_than
from .refusals import (
    BAD_REQUEST,
    FAULT,
    LONG_HEAD,
    NO_CREDENTIAL,
    NO_ROUTE,
    OVERLOADED,
    UNASKED_UPGRADE,
    UNREACHABLE,
    too_large,
)
from .routes import GATE, NO_UPGRADE, form_conditions, gate_for, headers_to_set, virtual_hosts

_ADMIN_CLUSTER = "admin"
# A web page can send any request to a port of this machine, so that no other admin page may exist.
_ADMIN_PATHS = ("/stats/prometheus", "/ready")
_DIRECT_BODY_BYTES = 1 << 20
_MONITOR, _ACTION = "envoy.resource_monitors.", "envoy.overload_actions."
_RELEASED_BYTES = 64 << 20
# A regular expression of many globs exceeds Envoy's default of 100 instructions.
_RE2_SIZES = {f"re2.max_program_size.{level}_level": 1_000_000 for level in ("error", "warn")}
# At these shares of the largest heap.
_HEAP_ACTIONS = {"shrink_heap": 0.9, "stop_accepting_requests": 0.95, "stop_accepting_connections": 0.98}
_LOAD_SHED, _LEAST_PATIENCE = "envoy.load_shed_points.", "5s"
_MAX_CONNECTIONS = 50_000
_UPGRADE = "websocket"
# No client sees this status: it marks an answer that gets its form as the others do.
_MARKED = 599
# No rule reads trailers, in which a client's key could leave.
_TRAILERS = {"request_trailers_mutations": [removal({"safe_regex": {"regex": ".*"}})]}
_UPSTREAM_FLAGS = ["UH", "UF", "UC", "UO", "LR", "UR", "URX", "UPE", "UT"]


def files(ruleset: RuleSet, options: Options) -> dict[str, str]:
    """Return the files of an export by name. `find_unsupported` must have found no problem."""
    exported = {"envoy.yaml": _yaml(bootstrap(ruleset, options))}
    for rule in ruleset.rules:
        for _, _, file in secrets_of(rule, listener_of(rule, ruleset, options)):
            exported[f"sds/{file}.yaml"] = _yaml(_secret(file, options))
    return exported


def bootstrap(ruleset: RuleSet, options: Options) -> dict[str, Any]:
    """Return the main file as plain data."""
    listeners = [
        _listener(options.named("gateway", each), each.address, each.port, _manager(each, ruleset, options))
        for each in options.listeners
    ]
    every = clusters(ruleset, options)
    if options.metrics:
        listeners.append(_listener("metrics", *options.metrics, _metrics()))
        every.append(_admin_cluster(options))
    return {
        "node": {"id": "mitm-gateway", "cluster": "mitm-gateway"},
        "admin": {
            "address": _address(*options.admin),
            "allow_paths": [{"exact": path} for path in _ADMIN_PATHS],
        },
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _RE2_SIZES}]},
        # Release memory to the system after a burst of large requests.
        "memory_allocator_manager": {"bytes_to_release": _RELEASED_BYTES, "memory_release_interval": "1s"},
        "overload_manager": _overload_manager(options),
        "static_resources": {"listeners": listeners, "clusters": every},
    }


def _overload_manager(options: Options) -> dict[str, Any]:
    """Bound memory and connections: without a bound, unfinished heads and bodies of clients fill the machine."""
    heap = f"{_MONITOR}fixed_heap"
    kind = "resource_monitors.fixed_heap.v3.FixedHeapConfig"
    monitors = [extension(heap, kind, max_heap_size_bytes=options.max_heap)]
    limits = f"{_MONITOR}global_downstream_max_connections"
    kind = "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    monitors.append(extension(limits, kind, max_active_downstream_connections=_MAX_CONNECTIONS))
    return {
        "refresh_interval": "0.02s",
        "resource_monitors": monitors,
        "actions": [_at_share(f"{_ACTION}{name}", heap, share) for name, share in _HEAP_ACTIONS.items()]
        + [_shorter_patience(heap)],
        # Bodies that have begun would grow on.
        "loadshed_points": [
            _at_share(f"{_LOAD_SHED}{name}", heap, _HEAP_ACTIONS["stop_accepting_connections"])
            for name in ("http1_server_abort_dispatch", "http2_server_go_away_and_close_on_dispatch")
        ],
    }


def _at_share(name: str, heap: str, share: float) -> dict[str, Any]:
    return {"name": name, "triggers": [{"name": heap, "threshold": {"value": share}}]}


def _shorter_patience(heap: str) -> dict[str, Any]:
    """Return the action that ends requests without progress sooner while memory is short, so that others are served."""
    kind = "config.overload.v3.ScaleTimersOverloadActionConfig"
    timers = [{"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_timeout": _LEAST_PATIENCE}]
    # Patience is least before requests are refused, or memory could stay between both bounds.
    scaled = {"scaling_threshold": 0.8, "saturation_threshold": _HEAP_ACTIONS["shrink_heap"]}
    return {
        "name": f"{_ACTION}reduce_timeouts",
        "triggers": [{"name": heap, "scaled": scaled}],
        "typed_config": typed(kind, timer_scale_factors=timers),
    }


def _address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _listener(name: str, address: str, port: int, manager: dict[str, Any]) -> dict[str, Any]:
    network = {"name": "http", "typed_config": manager}
    return {"name": name, "address": _address(address, port), "filter_chains": [{"filters": [network]}]}


_ROUTER = extension("router", "filters.http.router.v3.Router", suppress_envoy_headers=True)
_MANAGER = typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")


def _manager(listener: Listener, ruleset: RuleSet, options: Options) -> dict[str, Any]:
    return {
        **_MANAGER,
        "stat_prefix": options.named("gateway", listener),
        # Response headers stay the upstream's, request headers the client's.
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "early_header_mutation_extensions": [_clients_marks_removed()],
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "max_request_headers_kb": MAX_HEAD_BYTES >> 10,
        "http_protocol_options": PRESERVE_CASE
        | {"ignore_http_11_upgrade": [{"safe_regex": {"regex": other_than(_UPGRADE)}}]},
        "upgrade_configs": [{"upgrade_type": _UPGRADE}],
        "request_headers_timeout": "20s",
        "stream_idle_timeout": "600s",
        "route_config": {
            "name": "rules",
            "max_direct_response_body_size_bytes": _DIRECT_BODY_BYTES,
            "request_headers_to_remove": [PATH, MODEL, KEY, DONE, "x-forwarded-proto"],
            "virtual_hosts": virtual_hosts(ruleset, listener, options),
        },
        "local_reply_config": {"mappers": _mappers(listener, options)},
        "access_log": [access_log(listener, options)],
        "http_filters": _filters(lua(ruleset, listener, options)),
    }


def _clients_marks_removed() -> dict[str, Any]:
    """Return the mutation after which clients can set neither the filter's headers nor the ones that Envoy obeys."""
    kind = "http.early_header_mutation.header_mutation.v3.HeaderMutation"
    removals = [removal({"prefix": prefix}) for prefix in (HEADER_PREFIX, "x-envoy-")]
    return extension("header_mutation", kind, mutations=removals)


def _filters(code: str) -> list[dict[str, Any]]:
    http, source = "filters.http", {"inline_string": code}
    unasked = _unasked_upgrade()
    return [
        kept_for_log(),
        extension(NO_UPGRADE, f"{http}.custom_response.v3.CustomResponse", custom_response_matcher=unasked),
        # A request stays on the route of the rule that edited it; its new model could match another.
        extension(LUA, f"{http}.lua.v3.Lua", default_source_code=source, clear_route_cache=False),
        # Each rule's route replaces this gate.
        extension(GATE, f"{http}.rbac.v3.RBAC", rules=gate_for(0)),
        # A route adds its rule's header edits.
        extension(MUTATION, f"{http}.header_mutation.v3.HeaderMutation", mutations=_TRAILERS),
        _ROUTER,
    ]


def _unasked_upgrade() -> dict[str, Any]:
    """Match a 101 that answers no request to switch protocols."""
    status = {"name": "status", "typed_config": typed("type.matcher.v3.HttpResponseStatusCodeMatchInput")}
    policy = "http.custom_response.local_response_policy.v3.LocalResponsePolicy"
    refuse = {"action": extension("refuse", policy, status_code=_MARKED)}
    return {"matcher_tree": {"input": status, "exact_match_map": {"map": {"101": refuse}}}}


def _mappers(listener: Listener, options: Options) -> list[dict[str, Any]]:
    conditions = {
        UNASKED_UPGRADE: _has_status(_MARKED),
        NO_CREDENTIAL: _has_details("failed_to_inject_credential"),
        FAULT: _has_details("rbac_access_denied"),
        UNREACHABLE: {"response_flag_filter": {"flags": _UPSTREAM_FLAGS}},
        # The filter's own refusals have their reason already.
        too_large(options.body_limit): _satisfies(
            'response.code == 413 && response.code_details != "lua_response"'
        ),
        LONG_HEAD: _has_status(LONG_HEAD.status),
        OVERLOADED: {"response_flag_filter": {"flags": ["OM"]}},
        BAD_REQUEST: {"response_flag_filter": {"flags": ["DPE"]}},
        NO_ROUTE: {"response_flag_filter": {"flags": ["NR"]}},
    }
    return [
        mapper
        for refusal, condition in conditions.items()
        for mapper in _mapper(refusal, condition, listener.host)
    ]


def _has_details(start: str) -> dict[str, Any]:
    return _satisfies(f'response.code_details.startsWith("{start}")')


def _satisfies(expression: str) -> dict[str, Any]:
    kind = "access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": extension("cel", kind, expression=expression)}


def _has_status(status: int) -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": "mitm_gateway.unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _all_of(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": list(filters)}} if len(filters) > 1 else filters[0]


def _mapper(refusal: Refusal, condition: dict[str, Any], host: str) -> list[dict[str, Any]]:
    """Return Envoy's own refusal in the error form of each API."""
    return [
        {
            "filter": _all_of(condition, *({"header_filter": {"header": each}} for each in headers)),
            "status_code": refusal.status,
            "headers_to_add": headers_to_set(error_headers(refusal, form)),
            "body_format_override": {
                "text_format_source": {"inline_string": error_body(refusal, form).decode()},
                "content_type": "application/json",
            },
        }
        for form, headers in form_conditions(host)
    ]


def _metrics() -> dict[str, Any]:
    """Return a listener for a scraper and a readiness probe, which must not see the other admin pages."""
    routes = [{"match": {"path": path}, "route": {"cluster": _ADMIN_CLUSTER}} for path in _ADMIN_PATHS]
    return {
        **_MANAGER,
        "stat_prefix": "metrics",
        "route_config": {"virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": routes}]},
        "http_filters": [_ROUTER],
    }


def _admin_cluster(options: Options) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(*options.admin)}}
    return {
        "name": _ADMIN_CLUSTER,
        "type": "STATIC",
        "load_assignment": {"cluster_name": _ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _secret(file: str, options: Options) -> dict[str, Any]:
    secret = {"secret": {"filename": f"{options.secrets_dir}/{file}"}}
    return {
        "resources": [typed("extensions.transport_sockets.tls.v3.Secret", name=file, generic_secret=secret)]
    }


# An export takes libyaml a tenth of the time.
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_DUMPER):  # type: ignore[misc]
    """A dumper that writes long texts as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if text.lower() in ("y", "n"):  # texts to this library, and true and false to Envoy's
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _yaml(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
