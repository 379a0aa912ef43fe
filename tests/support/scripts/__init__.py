"""Scripts that mitmproxy loads when it is under test."""
