"""mitmproxy-gateway: YAML rules that let any LLM client use any gateway, inside mitmproxy."""

__version__ = "0.1.0"
