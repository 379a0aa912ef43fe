"""Sessions of the library `requests` that send nothing of ~/.netrc, whose `default` entry is meant for any host."""

from requests import PreparedRequest, Response, Session


class NoNetrcSession(Session):
    """A session with the proxies and authorities of the environment, and no other credentials than its requests have."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = _unchanged

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """Remove the credential from a redirected request, for which the library would search the file again."""
        prepared_request.headers.pop("Authorization", None)


def _unchanged(request: PreparedRequest) -> PreparedRequest:
    return request
