"""The network part of an intercepted client's environment: proxy, exceptions from it, and trusted authorities."""

import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import certifi

from ..rules.patterns import HostPattern
from ..rules.ruleset import RuleSet
from .api_hosts import Environ
from .ca_settings import configured_ca_files

# Variables that name a file of trusted authorities, and the programs that read them. These are always set.
CA_ALWAYS: Final = (
    "NODE_EXTRA_CA_CERTS",  # Node, Bun and Claude Code
    "SSL_CERT_FILE",  # OpenSSL, Python, Go, Rust, uv, Ruby
    "REQUESTS_CA_BUNDLE",  # requests, pip, boto3, AWS CLI
    "CURL_CA_BUNDLE",  # curl
    "GIT_SSL_CAINFO",  # git, also with GnuTLS
    "DENO_CERT",  # Deno
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",  # gRPC
)
# These are set only if the user has set them: their readers trust the file of a variable above too.
CA_IF_SET: Final = (
    "AWS_CA_BUNDLE",  # boto3, AWS CLI
    "BUNDLE_SSL_CA_CERT",  # Bundler
    "CARGO_HTTP_CAINFO",  # cargo
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",  # gcloud
    "HTTPLIB2_CA_CERTS",  # httplib2
    "NIX_SSL_CERT_FILE",  # Nix
    "NPM_CONFIG_CAFILE",  # npm, where it overrides NODE_EXTRA_CA_CERTS
    "npm_config_cafile",  # npm, where it overrides NODE_EXTRA_CA_CERTS
    "PERL_LWP_SSL_CA_FILE",  # Perl
    "PIP_CERT",  # pip
    "YARN_HTTPS_CA_FILE_PATH",  # Yarn
)
CA_VARIABLES: Final = (*CA_ALWAYS, *CA_IF_SET)
# Files that the user names in them are trusted by the gateway for upstreams too.
UPSTREAM_VARIABLES: Final = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
PROXY_VARIABLES: Final = (
    "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Files in which systems keep their authorities; Python's own answer depends on how it was built.
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def proxied(ruleset: RuleSet, proxy: str, bundle: Path, environ: Environ) -> dict[str, str]:
    """Return the variables that lead a client through an intercepting proxy and make it trust the proxy."""
    own = {**configured_ca_files(environ), **environ}
    return {
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        # Programs on Node 22 and later that call `fetch` or `https` ignore the proxy without it.
        "NODE_USE_ENV_PROXY": "1",
        **no_proxy(environ, ruleset),
        **{name: str(bundle) for name in CA_VARIABLES if name in CA_ALWAYS or own.get(name)},
    }


def no_proxy(environ: Environ, ruleset: RuleSet | None = None) -> dict[str, str]:
    """Return `NO_PROXY` with loopback added, and without entries that would bypass rules."""
    before = [*no_proxy_entries(environ.get("no_proxy", "")), *no_proxy_entries(environ.get("NO_PROXY", ""))]
    entries = dict.fromkeys([*before, *_LOOPBACK])
    value = ",".join(entry for entry in entries if ruleset is None or not ruled_host(entry, ruleset))
    return {"NO_PROXY": value, "no_proxy": value}


def proxy_variable(environ: Environ) -> str | None:
    """Return a variable of the user's proxy, which would get the requests to a listener.

    Some programs, such as Claude Code, use `HTTPS_PROXY` for plain http too.
    """
    return next((name for name in PROXY_VARIABLES if environ.get(name)), None)


def no_proxy_entries(text: str) -> list[str]:
    """Return the entries of a `NO_PROXY` value."""
    return text.replace(",", " ").split()


def ruled_host(entry: str, ruleset: RuleSet) -> str | None:
    """Return the first host of a rule that a `NO_PROXY` entry excepts from the proxy."""
    hosts = (pattern for rule in ruleset.rules for pattern in rule.match.host)
    return next((pattern.text for pattern in hosts if excepts(entry, pattern)), None)


def excepts(entry: str, pattern: HostPattern) -> bool:
    """Return True if a `NO_PROXY` entry excepts requests to any of these hosts from a proxy."""
    name = entry.lower().lstrip("*").lstrip(".").partition(":")[0]
    host = pattern.text.lower().partition(":")[0]
    return entry == "*" or (bool(name) and (host == name or host.endswith("." + name)))


def ca_bundle(ca: Path, environ: Environ) -> bytes:
    """Return every certificate that the client trusts already, and the CA of the proxy, each once."""
    named = [Path(environ[name]).expanduser() for name in CA_VARIABLES if environ.get(name)]
    system = (
        *configured_ca_files(environ).values(),
        *_SYSTEM_BUNDLES,
        ssl.get_default_verify_paths().openssl_cafile,
    )
    return _joined([ca, Path(certifi.where()), *named, *map(Path, system)])


def upstream_authorities(environ: Environ) -> bytes | None:
    """Return the certificates to trust upstream if the user's variables name further authorities, else None."""
    files = [Path(environ[name]).expanduser() for name in UPSTREAM_VARIABLES if environ.get(name)]
    return _joined([*files, Path(certifi.where())]) if any(map(_certificates, files)) else None


def _joined(files: Sequence[Path]) -> bytes:
    """Return the certificates in these files, each once."""
    return b"\n".join(dict.fromkeys(each for file in files for each in _certificates(file))) + b"\n"


def _certificates(file: Path) -> list[bytes]:
    try:
        return _CERTIFICATE.findall(file.read_bytes())
    except OSError:
        return []


def unusable_ca_files(environ: Environ, names: Sequence[str] = CA_VARIABLES) -> Iterator[tuple[str, str]]:
    """Yield each of these variables that names a file without a certificate, with the reason."""
    for name in names:
        if (path := environ.get(name)) and (fault := fault_of_ca_file(path)):
            yield name, f"{path}: {fault}"


def fault_of_ca_file(path: str) -> str | None:
    """Return why a file cannot name authorities; None if it can."""
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as fault:
        return fault.strerror or "cannot be read"
    if _CERTIFICATE.search(content):
        return None
    return "no PEM certificate in it" if content.strip() else "the file is empty"
