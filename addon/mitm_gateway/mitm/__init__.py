"""Everything else that knows mitmproxy: hooks, options, commands, views."""
