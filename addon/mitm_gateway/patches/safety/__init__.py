"""Changes to mitmproxy without which a promise of the gateway would not hold."""
