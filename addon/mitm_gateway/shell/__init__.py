"""Everything that knows mitmproxy; nothing here decides about rules."""
