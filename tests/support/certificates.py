"""A certificate authority for upstreams under test."""

import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mitmproxy import certs


class Authority:
    """A certificate authority in a folder; clients must trust `ca_file`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key, self._certificate = certs.create_ca("tests", "upstreams under test", 2048)
        self.ca_file = folder / "upstream-ca.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, *names: str, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
        """A server's TLS settings with a fresh certificate for these host names and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate(*names))
        context.set_alpn_protocols(list(alpn))
        return context

    def certificate(self, *names: str) -> Path:
        """A file with the key and a fresh certificate for these host names and addresses."""
        certificate = certs.dummy_cert(self._key, self._certificate, names[0], map(_general_name, names))
        file = self._folder / f"{certificate.serial}.pem"
        file.write_bytes(
            self._key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.to_pem()
        )
        return file


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
