"""What holds for all unit tests."""

from hypothesis import HealthCheck, settings

# Other programs may keep the machine busy, so that no example and no drawing of one is timed:
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
