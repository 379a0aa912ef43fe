"""Every change to mitmproxy's insides, and nothing else."""
