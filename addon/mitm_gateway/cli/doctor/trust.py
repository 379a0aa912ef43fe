"""Checks of mitmproxy's version and CA, and of the clients' trust in that CA."""

import datetime
import re
from pathlib import Path

from cryptography import x509

from ...clients.network import unusable_ca_files
from .finding import Fault, Findings, Good, Note, Subject
from .network import is_client_of_gateway

_CA_WARNING = datetime.timedelta(days=14)


def check(subject: Subject) -> Findings:
    """Check the CA's files, the variables that name CA files, and the clients' trust."""
    ca, key = (subject.confdir / f"mitmproxy-ca{end}.pem" for end in ("-cert", ""))
    if key.is_file() and key.stat().st_mode & 0o077:
        yield Fault(f"{key}: other users can read the key of the CA that clients trust", f"chmod 600 {key}")
    if ca.is_file() and (left := time_left(ca)) < _CA_WARNING:
        yield Fault(
            f"{ca}: the certificate {'expires soon' if left > datetime.timedelta(0) else 'has expired'}",
            f"remove {subject.confdir}/mitmproxy-ca*, start the gateway, trust the new one",
        )
    for name, fault in unusable_ca_files(subject.environ):
        yield Fault(f"{name} is not a file of certificate authorities: {fault}", f"correct or unset {name}")
    if not is_client_of_gateway(subject):
        yield Good("HTTPS_PROXY does not point at this gateway, so clients need not trust its CA")
        return
    yield from _check_clients(subject, ca)


def _check_clients(subject: Subject, ca: Path) -> Findings:
    if not ca.is_file():
        yield Fault(
            f"HTTPS_PROXY is set, but {ca} does not exist", "start the gateway once; it creates its CA"
        )
        return
    own = _body(ca.read_text())
    for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"):
        file = Path(subject.environ.get(name) or "/nowhere")
        if file.is_file() and own in _body(file.read_text(errors="replace")):
            yield Good(f"{name} contains the proxy's CA")
        else:
            clients = "Node, Bun and Claude Code" if name.startswith("NODE") else "Python and curl"
            yield Fault(f"{clients} do not trust the proxy's CA", 'eval "$(mitm-gateway env --intercept)"')


def _body(pem: str) -> str:
    return re.sub(r"\s", "", pem).replace("-----ENDCERTIFICATE-----", "")


def time_left(ca: Path) -> datetime.timedelta:
    """Return how long a certificate remains valid; zero for one that cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificate(ca.read_bytes())
    except ValueError:
        return datetime.timedelta(0)
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)


def check_version(subject: Subject) -> Findings:
    """Find versions of mitmproxy whose web page has no login."""
    from ...mitm.option_conflicts import has_web_login

    if not has_web_login(subject.mitmproxy):
        yield Note(
            f"mitmproxy {subject.mitmproxy}: mitmweb has no login, so every program on this machine can read its flows "
            "(CVE-2025-23217)",
            "install the gateway with Python 3.12 or newer, or use it without mitmweb (--web)",
        )
    else:
        yield Good(f"mitmproxy {subject.mitmproxy}")
