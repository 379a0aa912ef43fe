"""Upstreams as Envoy's clusters: TLS with the right name, HTTP/2 where offered, credentials added last."""

from typing import Any

from ..rules.fields import CLIENT, CREDENTIAL_REFERENCE
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..wire.addresses import Upstream, is_address
from .export_options import Listener, Options
from .extension import extension, typed
from .lua_filter import auth_on, destination_on
from .routes import PASS_CLUSTER, cluster_name

_HTTP = "extensions.upstreams.http.v3.HttpProtocolOptions"
_FORMATTER = "http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
PRESERVE_CASE = {"header_key_format": {"stateful_formatter": extension("preserve_case", _FORMATTER)}}
# Envoy's default of 1024 of each suits services in a mesh, not one gateway of many clients.
_MANY = 65536
# The figures of the vendors' SDKs, as in `mitm/upstream_proxy.py`.
_KEEP_ALIVE = {"keepalive_time": 60, "keepalive_interval": 60, "keepalive_probes": 5}


def clusters(ruleset: RuleSet, options: Options) -> list[dict[str, Any]]:
    """Return a cluster for each rule, and one for each listener whose unmatched requests pass."""
    found = []
    for number, rule in enumerate(ruleset.rules, start=1):
        listener = listener_of(rule, ruleset, options)
        injectors = [_injector(*secret, options) for secret in secrets_of(rule, listener)]
        found.append(_cluster(cluster_name(number), destination_on(rule, listener), injectors, options))
    if ruleset.unmatched == "pass":
        found += [
            _cluster(
                options.named(PASS_CLUSTER, each), Upstream("https", each.host, each.host_port), [], options
            )
            for each in options.listeners
        ]
    return found


def listener_of(rule: Rule, ruleset: RuleSet, options: Options) -> Listener:
    """Return the first listener that a rule serves."""
    return next(
        listener
        for listener in options.listeners
        if rule in ruleset.on_host(listener.host, listener.host_port)
    )


def secrets_of(rule: Rule, listener: Listener) -> list[tuple[str, str, str]]:
    """Return header, prefix and file of each secret that a rule sends; the auth header is last.

    A second file of a credential holds its base64 form, for Basic.
    """
    found = []
    for header, value in rule.headers.set.items():
        if names := CREDENTIAL_REFERENCE.findall(value):
            found.append((header, CREDENTIAL_REFERENCE.sub("", value), names[0]))
    auth = auth_on(rule, listener)
    if auth.credential not in (None, CLIENT):
        header, prefix = auth.slot
        found.append((header, prefix, f"{auth.credential}{'.basic' * (auth.scheme == 'basic')}"))
    return found


def _injector(header: str, prefix: str, file: str, options: Options) -> dict[str, Any]:
    # Envoy watches the folder for changes.
    place = {
        "path": f"{options.config_dir}/sds/{file}.yaml",
        "watched_directory": {"path": options.secrets_dir},
    }
    secret = {"name": file, "sds_config": {"resource_api_version": "V3", "path_config_source": place}}
    credential = extension(
        "envoy.http.injected_credentials.generic",
        "http.injected_credentials.generic.v3.Generic",
        header=header,
        **({"header_value_prefix": prefix} if prefix else {}),
        credential=secret,
    )
    kind = "filters.http.credential_injector.v3.CredentialInjector"
    return extension(f"credential {file}", kind, overwrite=True, credential=credential)


def _cluster(name: str, place: Upstream, injectors: list[dict[str, Any]], options: Options) -> dict[str, Any]:
    codec = extension("codec", "filters.http.upstream_codec.v3.UpstreamCodec")
    filters = [*injectors, codec] if injectors else []
    is_tls = place.scheme == "https"
    protocol = (
        {"auto_config": {"http_protocol_options": PRESERVE_CASE, "http2_protocol_options": {}}}
        if is_tls
        else {"explicit_http_config": {"http_protocol_options": PRESERVE_CASE}}
    )
    address = {"socket_address": {"address": place.host, "port_value": place.port}}
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _MANY)
    return {
        "name": name,
        "type": "STATIC" if is_address(place.host) else "LOGICAL_DNS",
        "dns_lookup_family": "ALL",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [limits]},
        "upstream_connection_options": {"tcp_keepalive": _KEEP_ALIVE},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            f"envoy.{_HTTP}": typed(_HTTP, **protocol, http_filters=filters)
        },
        **({"transport_socket": _tls(place, options)} if is_tls else {}),
    }


def _tls(place: Upstream, options: Options) -> dict[str, Any]:
    has_name = not is_address(place.host)
    name = {"san_type": "DNS" if has_name else "IP_ADDRESS", "matcher": {"exact": place.host}}
    trusted = {"trusted_ca": {"filename": options.ca}, "match_typed_subject_alt_names": [name]}
    versions = {"tls_minimum_protocol_version": "TLSv1_2"}
    return extension(
        "tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        **({"sni": place.host} if has_name else {}),
        common_tls_context={"tls_params": versions, "validation_context": trusted},
    )
