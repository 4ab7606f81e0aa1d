"""What holds for all unit tests."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # the machine may be busy with something else
settings.load_profile("unhurried")
