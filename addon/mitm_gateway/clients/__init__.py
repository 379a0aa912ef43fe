"""Client programs as dated data, and the environment that each of them needs."""
