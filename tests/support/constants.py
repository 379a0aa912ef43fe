"""Names, keys and places that many tests share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDON = ROOT / "addon"
PACKAGE = ADDON / "mitm_gateway"
GATEWAY = ADDON / "gateway.py"
TESTS = ROOT / "tests"
RULES_DATA = TESTS / "data" / "rules"
STREAMS = TESTS / "data" / "streams"
# Requests and responses, and texts that the LLM view shows for them and for streams.
CONVERSATIONS = TESTS / "data" / "conversations"

API = "api.anthropic.com"
REVERSE = (f"reverse:https://{API}",)

# The client's key and the gateway's key. Masking leaves the last four characters, so a mark never survives it.
CK, CK_MARK = "sk-ant-client-key-0123456789abcdef", "client-key"
GW, GW_MARK = "gateway-key-fedcba9876543210", "gateway-key"
GW_MASKED = "****3210"
ENV = {"GW_KEY": GW}

JSON = ("Content-Type", "application/json")
CLIENT_KEY = ("x-api-key", CK)
# The headers of a request to a reverse listener.
HEADERS = [("Host", "localhost"), CLIENT_KEY, JSON]
# A client's request for a WebSocket.
UPGRADE = (
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)  # fmt: skip
