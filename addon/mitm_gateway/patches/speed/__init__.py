"""Changes that make mitmproxy faster and remove none of its features (`gateway_fast`)."""
