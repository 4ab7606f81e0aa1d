"""Device profiles: what is said of one family must hold together, and have a source."""

import dataclasses
from functools import partial
from itertools import combinations

import pytest

from harness.devices import (
    INTEL,
    PROFILES,
    DeviceProfile,
    Fact,
    by_pf_id,
    by_vf_id,
    profile,
    without_erratum_35,
)
from harness.errors import UsageError

EVERY = pytest.mark.parametrize("device", PROFILES.values(), ids=lambda device: device.name)


def facts(device: DeviceProfile) -> dict[str, Fact[object]]:
    values = {field.name: getattr(device, field.name) for field in dataclasses.fields(device)}
    return {name: value for name, value in values.items() if isinstance(value, Fact)}


@EVERY
def test_every_fact_and_quirk_names_a_kind_of_source(device: DeviceProfile) -> None:
    """A fact without one cannot be checked by the next reader; recollection is no source."""
    sources = [fact.source for fact in facts(device).values()]
    sources += [quirk.source for quirk in device.quirks]
    known = (
        *("drivers/", "Linux commit", "QEMU commit", "measured with"),
        *("Intel 82599 errata", "Intel 82599 specification update"),
    )
    assert [source for source in sources if not source.startswith(known)] == []
    assert len(facts(device)) >= 10


def test_no_pci_id_belongs_to_two_families() -> None:
    """Two profiles for one id would make the answer depend on the order of the table."""
    for one, other in combinations(PROFILES.values(), 2):
        assert one.pf_devices.value.isdisjoint(other.pf_devices.value)
        assert one.vf_device.value != other.vf_device.value


@pytest.mark.parametrize(
    ("name", "port", "vf", "drivers"),
    [
        ("82599", 0x10FB, 0x10ED, ("ixgbe", "ixgbevf")),
        ("X540", 0x1528, 0x1515, ("ixgbe", "ixgbevf")),
        ("X550", 0x1563, 0x1565, ("ixgbe", "ixgbevf")),
        ("82576", 0x10C9, 0x10CA, ("igb", "igbvf")),
    ],
)
def test_a_family_is_found_by_name_and_by_its_ids(
    name: str, port: int, vf: int, drivers: tuple[str, str]
) -> None:
    """The common card of each family, as the PCI ID database lists it."""
    device = profile(name)
    assert by_pf_id(INTEL, port) is device
    assert by_vf_id(INTEL, vf) is device
    assert (device.pf_driver.value, device.vf_driver.value) == drivers


def test_a_port_is_no_vf_and_another_vendor_is_no_intel() -> None:
    """A VF taken for a port would be asked for VFs of its own."""
    assert by_pf_id(INTEL, 0x10ED) is None
    assert by_vf_id(INTEL, 0x10FB) is None
    assert by_pf_id(0x15B3, 0x10FB) is None
    assert by_vf_id(0x15B3, 0x10ED) is None


def test_an_unknown_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"'82598' is no device profile; did you mean") as caught:
        profile("82598")
    assert "82576, 82599, X540, X550" in caught.value.fix


@EVERY
def test_the_largest_frame_is_the_largest_mtu_with_header_and_checksum(
    device: DeviceProfile,
) -> None:
    """14 bytes of header and 4 of checksum.

    Where the two limits disagree, a boundary test probes the wrong one.
    """
    assert device.max_frame_bytes.value == device.pf_max_mtu.value + 14 + 4
    assert device.vf_max_mtu.value <= device.pf_max_mtu.value


@pytest.mark.parametrize(
    ("port_mtu", "vf_mtu", "old_mailbox", "receives"),
    [
        (1500, 1500, False, True),
        (1500, 1501, False, False),
        (1500, 9000, False, False),
        (1501, 1500, False, True),
        (9000, 1500, False, True),
        (9000, 9000, False, True),
        (9710, 9710, False, True),
        (9710, 9711, False, False),
        (9711, 1500, False, False),
        (1500, 1500, True, True),
        (1500, 9000, True, False),
        (9000, 1500, True, False),
        (9000, 9000, True, False),
    ],
)
def test_82599_vf_receives_by_the_rule_of_its_port(
    port_mtu: int, vf_mtu: int, old_mailbox: bool, receives: bool
) -> None:
    """The table is ixgbe_set_vf_lpe's, worked out by hand.

    A jumbo port wants a VF with the new mailbox, and a jumbo VF wants a jumbo port.
    """
    seen = profile("82599").vf_receives(port_mtu=port_mtu, vf_mtu=vf_mtu, old_mailbox=old_mailbox)
    assert seen is receives


@pytest.mark.parametrize("name", ["X540", "X550", "82576"])
def test_other_vfs_receive_whatever_their_port_does(name: str) -> None:
    """The stand-in of the emulated lab must not be taken for proof of the 82599's rule."""
    device = profile(name)
    assert device.vf_receives(port_mtu=1500, vf_mtu=9000)
    assert device.vf_receives(port_mtu=9000, vf_mtu=1500, old_mailbox=True)
    assert not device.vf_receives(port_mtu=1500, vf_mtu=device.vf_max_mtu.value + 1)


@pytest.mark.parametrize(
    ("name", "port_mtu", "vf_mtu", "largest"),
    [
        ("82599", 9000, 9000, 9014),
        ("82599", 9000, 1500, 9014),
        ("82599", 1500, 1000, 1514),
        ("82599", 1000, 1000, 1514),
        ("82599", 9710, 9710, 9724),
        ("82576", 9000, 9000, 9018),
        ("82576", 9000, 1500, 1518),
        ("82576", 1500, 9000, 9018),
        ("82576", 9216, 9216, 9230),
    ],
)
def test_the_largest_frame_that_a_vf_receives(
    name: str, port_mtu: int, vf_mtu: int, largest: int
) -> None:
    """The 82599 has one limit for its port and all VFs (MAXFRS), the 82576 one for each VF."""
    takes = partial(profile(name).vf_takes, vf_mtu=vf_mtu, port_mtu=port_mtu)
    assert (takes(largest), takes(largest + 1)) == (True, False)


@pytest.mark.parametrize(
    ("quirk", "families"),
    [
        ("bad-vf-is-reset", {"82599", "X540", "X550"}),
        ("bad-vf-is-disabled", {"82599"}),
        ("record-outlives-filter", {"82599", "X540", "X550"}),
        ("flr-keeps-queue-registers", {"82599"}),
        ("small-buffers-limit-frames", {"X540", "X550"}),
    ],
)
def test_a_quirk_is_told_of_the_families_that_its_source_speaks_of(
    quirk: str, families: set[str]
) -> None:
    """ixgbe_bad_vf_abort looks for an 82599, and so does its specification update."""
    assert {name for name, device in PROFILES.items() if device.quirk(quirk)} == families


def test_where_the_stand_in_differs_from_the_82599() -> None:
    """Tests of these four must be skipped on the emulated lab, so the profiles must tell."""
    real, stand_in = profile("82599"), profile("82576")
    assert real.vf_advertises_flr is not None
    assert stand_in.vf_advertises_flr is not None
    assert (real.vf_advertises_flr.value, stand_in.vf_advertises_flr.value) == (False, True)
    assert (real.vf_has_memory_enable.value, stand_in.vf_has_memory_enable.value) == (False, True)
    assert real.vf_link_states.value == {"auto", "disable"}
    assert stand_in.vf_link_states.value == set()
    assert real.jumbo_rule.value is not stand_in.jumbo_rule.value


def test_a_function_reset_takes_the_filter_of_every_family_that_ixgbe_drives() -> None:
    """The hand-off is set by this: the wrong way round users are cut off, or the pair never forms.

    The stand-in's driver, igb, keeps it.
    """
    kept = {name: device.filter_survives_reset.value for name, device in PROFILES.items()}
    assert kept == {"82599": False, "X540": False, "X550": False, "82576": True}


def test_without_erratum_35_nothing_else_is_another() -> None:
    """A twin can be so; whatever a test expects of it otherwise is an 82599's."""
    real = profile("82599")
    mended = without_erratum_35(real)
    assert mended.vf_advertises_flr is not None
    assert mended.vf_advertises_flr.value
    assert dataclasses.replace(mended, vf_advertises_flr=real.vf_advertises_flr) == real


def test_what_no_source_says_is_left_out_and_not_inherited() -> None:
    """Erratum 35 is the 82599's own; nothing was read about the X540 and X550."""
    assert profile("X540").vf_advertises_flr is None
    assert profile("X550").quirk("wrong-completer-id") is None
    assert profile("82599").quirk("wrong-completer-id") is not None
