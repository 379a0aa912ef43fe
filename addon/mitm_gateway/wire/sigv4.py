"""AWS Signature Version 4: botocore (extra `aws`) finds the keys and signs a request as it will be sent."""

import importlib.util
from dataclasses import dataclass
from typing import Any

from ..text.redact import Secret
from .request import Fields, as_bytes, as_text

# The message wherever a rule signs and botocore is not installed.
MISSING = "needs botocore"
# The only client headers that are signed: others may change on the way, and AWS does not require them.
_SIGNED = (b"content-type",)
# Headers that a signature of the client may have left.
_REPLACED = frozenset({b"authorization", b"x-amz-date", b"x-amz-security-token", b"x-amz-content-sha256"})


class AwsError(Exception):
    """AWS keys that are missing or unusable; the text contains nothing of them."""


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """An access key's id and secret, and the token of a temporary session."""

    access_key: str
    secret_key: Secret
    token: Secret | None = None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The parts that are secret."""
        return (self.secret_key, self.token) if self.token else (self.secret_key,)


def is_available() -> bool:
    """Return whether botocore is installed."""
    return importlib.util.find_spec("botocore") is not None


def provider(profile: str) -> Any:
    """Return botocore's source of keys for a profile, `default` for the usual chain. Blocks; raises AwsError."""
    if not is_available():
        raise AwsError(MISSING)
    import botocore.exceptions
    import botocore.session

    try:
        session = botocore.session.Session(profile=None if profile == "default" else profile)
        found = session.get_credentials()
    except botocore.exceptions.ProfileNotFound:
        raise AwsError("the AWS profile does not exist") from None
    except botocore.exceptions.BotoCoreError as fault:
        raise AwsError(f"no AWS keys ({type(fault).__name__})") from None
    if found is None:
        raise AwsError("no AWS keys; none found in variables, profile, SSO or instance")
    return found


def frozen(found: Any) -> AwsKeys:
    """Return the current keys, renewed if they have expired. May block; raises AwsError."""
    import botocore.exceptions

    try:
        keys = found.get_frozen_credentials()
    except botocore.exceptions.BotoCoreError as fault:
        raise AwsError(f"the AWS keys cannot be renewed ({type(fault).__name__})") from None
    token = Secret(keys.token) if keys.token else None
    return AwsKeys(keys.access_key, Secret(keys.secret_key), token)


def signed(
    fields: Fields, method: str, url: str, body: bytes, keys: AwsKeys, *, service: str, region: str
) -> Fields:
    """Return the fields with a new signature over method, URL, host, content type and body."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    kept = tuple(item for item in fields if item[0].lower() not in _REPLACED)
    request = AWSRequest(
        method=method,
        url=url,
        data=body,
        headers={as_text(name): as_text(value) for name, value in kept if name.lower() in _SIGNED},
    )
    own = Credentials(keys.access_key, keys.secret_key.reveal(), keys.token.reveal() if keys.token else None)
    SigV4Auth(own, service, region).add_auth(request)
    headers = [(as_bytes(name), as_bytes(value)) for name, value in request.headers.items()]
    return (*kept, *[item for item in headers if item[0].lower() in _REPLACED])
