"""Building blocks of the tests: upstreams, mitmproxy processes, raw clients, Claude Code."""
