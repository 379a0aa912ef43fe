"""What holds for every test."""

from hypothesis import settings

# How long one example takes says nothing on a busy machine; what hangs, pytest's own limit ends.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")
