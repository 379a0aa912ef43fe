"""The table of APIs by name, and a request to each endpoint in it."""

from mitm_gateway.llm.apis import APIS, OTHER, Api

API_BY_NAME = {api.name: api for api in (*APIS, OTHER)}
_FILL = {"{model*}": "{model}", "**": "rest/of/it", "*": "part"}


def endpoints(api: Api) -> list[tuple[str, str]]:
    """Return method and path of requests to an API, behind a base path and with `{model}` for the name."""
    found = []
    for endpoint in api.endpoints or ("POST /v1/anything",):
        method, _, path = endpoint.rpartition(" ")
        for mark, text in _FILL.items():
            path = path.replace(mark, text)
        found.append((method or "POST", "/base" + path))
    return found
