"""What the end-to-end tests stand on: upstreams, mitmproxy processes, raw clients, Claude Code."""
