"""Topologies: every fault in a file is told with its line, key and what was expected."""

import datetime
import math
import pickle
import re
import tomllib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from harness.errors import UsageError
from harness.topology import TOPOLOGIES, find, load, reading
from harness.topology.places import dotted

EMULATED = (TOPOLOGIES / "emulated-82576.toml").read_text()
ALDER = "[hosts.alder]"
BIRCH_ADDRESS = 'address = "127.0.0.1"\nport = 22023'
PORT = 'pci = "0000:01:00.0"'
LINK = 'ends = ["alder.p0", "birch.p0", "peer"]'
ANOTHER_PORT = f'[hosts.alder.ports.p1]\n{PORT} # again\ndevice = "82576"\n\n[hosts.birch]'

ODD_VALUES: list[Any] = [
    *(0, -1, 10**30, 1.5, math.nan, True, "", "a.b", [], [1], [{}], {}, {"a": 1}),
    datetime.date(2026, 1, 1),
]


def refusal(path: Path) -> str:
    """Tell what a person sees when the file at *path* is given."""
    with pytest.raises(UsageError) as caught:
        load(path)
    return str(caught.value)


def spoilt(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the emulated lab's file with each first *old* text replaced by the new."""
    text = EMULATED
    for old, new in changes:
        assert old in text, f"{old!r} is no longer in emulated-82576.toml"
        text = text.replace(old, new, 1)
    path = folder / "spoilt.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["emulated", "emulated-82576", "x520-pair"])
def test_a_file_of_ours_loads_and_equals_itself(name: str) -> None:
    """Lines are kept beside the models: they must not make two readings differ."""
    topology = load(find(name))
    assert topology.name == name
    assert topology == load(find(name)) == pickle.loads(pickle.dumps(topology))


def test_emulated_lab_is_as_its_file_says() -> None:
    """One value of each kind, so that a key read into the wrong field shows."""
    lab = load(find("emulated"))
    assert lab.hosts["birch"].migration_endpoint == ("198.19.0.2", 4444)
    assert lab.port("alder.p0").profile.vf_driver.value == "ixgbevf"
    assert (lab.connection("birch").address, lab.connection("birch").port) == ("127.0.0.1", 22023)
    assert lab.connection("peer").namespace == "vfh-emulated-peer"
    assert str(lab.guest.address) == "198.18.0.2/24"
    assert lab.place("guest", "mac").endswith(f"emulated.toml:{line_of('mac = ')}")
    assert (lab.limits.longest_outage_ms, lab.limits.rate_pps) == (5000, 100)


def test_values_are_written_as_sysfs_writes_them(tmp_path: Path) -> None:
    """`lspci` and people use capitals too; a path made of them would lead nowhere in sysfs."""
    path = spoilt(tmp_path, ("0000:01:00.0", "0000:AF:00.0"), ("52:54:00:12", "52:54:00:AB"))
    lab = load(path)
    assert lab.hosts["alder"].ports["p0"].pci == "0000:af:00.0"
    assert lab.guest.mac == "52:54:00:ab:34:56"


def line_of(text: str, whole: str = EMULATED) -> int:
    return whole[: whole.index(text)].count("\n") + 1


SLIPS = [
    # (what is replaced, by what, text on the line that is told, key, what the message must say)
    ("schema = 1", "schema = 2", "schema = 2", "schema", "which is 1"),
    ("schema = 1", "", None, "schema", "version of this format"),
    ('name = "emulated-82576"', "name = 7", "name = 7", "name", "lower case"),
    ('interface = "wire0"', "", "[peer]", "peer.interface", 'such as "ens1f0"'),
    ("interface =", "interfase =", "interfase", "peer.interfase", "interface perhaps"),
    (ALDER, f'{ALDER}\npassword = "x"', "password", "hosts.alder.password", "ssh-agent"),
    (ALDER, f'{ALDER}\nidentity = "key"', "identity", "hosts.alder.identity", "from / or ~"),
    (PORT, 'pci = "01:00.0"', '"01:', "hosts.alder.ports.p0.pci", '"0000:17:00.0"'),
    (PORT, 'pci = "0000:01:20.0"', ":20.", "hosts.alder.ports.p0.pci", "lspci -D"),
    ('"82576"', '"82598"', '"82598"', "hosts.alder.ports.p0.device", 'mean "82599"'),
    ("52:54:00:12:34:56", "52:54", "mac =", "guest.mac", '"52:54:00:12:34:56"'),
    ("52:54:00:12:34:56", "01:00:5e:00:00:01", "mac =", "guest.mac", "one station"),
    ("198.18.0.2/24", "198.18.0.2", '198.18.0.2"', "guest.address", '"198.18.0.1/24"'),
    ("198.18.0.2/24", "198.18.1.2/24", "1.2/24", "guest.address", "198.18.0.0/24"),
    ("198.18.0.2/24", "198.18.0.1/24", '"\nmac', "guest.address", "another address"),
    ("port = 22022", 'port = "22"', 'port = "', "hosts.alder.port", "1 to 65535"),
    ("port = 22022", "port = 65536", "65536", "hosts.alder.port", "1 to 65535"),
    (BIRCH_ADDRESS, "address = '127.0.0.1'\nport = 22022", "address = '", "hosts.birch.address",
     "an address and port of its own"),
    ('migration_address = "198.19.0.2"',
     'migration_address = "198.19.0.1" #\nmigration_port = 4444',
     "migration_port", "hosts.birch.migration_port", "of its own for each host"),
    (LINK, 'ends = ["alder.p0", "cedar.p0"]', "ends", "links[0].ends[1]",
     "alder.p0, birch.p0, peer"),
    (LINK, 'ends = ["alder.p0", "alder.p0"]', "ends", "links[0].ends[1]", "one link only"),
    (LINK, 'ends = ["peer"]', "ends", "links[0].ends", "two or more"),
    ("mtu = 9000\n\n#", "mtu = 9217\n\n#", "mtu = 9217", "links[0].mtu", "9216 or less"),
    ("mtu = 9000", "mtu = 9001", "mtu = 9001", "guest.mtu", "9000 or less"),
    ('device = "82576"', 'device = "82576"\nvfs = 8', "vfs", "hosts.alder.ports.p0.vfs",
     "7 or fewer"),
    ("[hosts.birch]", ANOTHER_PORT, "# again", "hosts.alder.ports.p1.pci",
     "one table for each port"),
    ('["iommu"]', '["iomu"]', "offers", "offers[0]", 'did you mean "iommu"?'),
    ('["iommu"]', '["82599"]', "offers", "offers[0]", "a port of the 82599"),
    ('transport = "local"', "", "[peer]", "peer.management_address", '"192.0.2.13"'),
    ('transport = "local"', 'transport = "telnet"', "telnet", "peer.transport", '"local"'),
    (ALDER, f'{ALDER}\nnamespace = "x"', 'ce = "x', "hosts.alder.namespace", '"local"'),
    (ALDER, f'{ALDER}\ntwin.interface = "p0"', "twin.", "hosts.alder.twin", "local"),
    ("hosts.birch", "hosts.Birch", "hosts.Birch", "hosts.Birch", "such as alder"),
    ("hosts.alder", 'hosts."a b"', '."a b"]', 'hosts."a b"', "such as alder"),
    ("[limits]", "[hosts]\ncedar = 5\n[limits]", "cedar", "hosts.cedar", "table of the keys"),
    ("hosts.alder", "hosts.peer", "hosts.peer", "hosts.peer", "another name"),
    ("longest_outage_ms = 5000", "longest_outage_ms = 0", "_ms = 0", "limits.longest_outage_ms",
     "more than 0"),
    ("cpus = 1", "cpus = true", "cpus = true", "guest.cpus", "1 or more"),
    ("[guest]", "[[guest]]", "[[guest]]", "guest", "such as [guest]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "at", "key", "expected"), SLIPS, ids=[slip[3] for slip in SLIPS]
)
def test_a_fault_is_told_with_its_line_key_and_what_was_expected(
    tmp_path: Path, old: str, new: str, at: str | None, key: str, expected: str
) -> None:
    """Each row is a slip that people make; the message alone must let them mend it."""
    path = spoilt(tmp_path, (old, new))
    told = refusal(path)
    line = f":{line_of(at, path.read_text())}" if at else ""
    assert f"{path}{line}: {key} " in told
    assert expected in told
    assert "pydantic" not in told
    assert "For further information" not in told


@pytest.mark.parametrize("key", ["boot_tries", "migrate_tries"])
def test_a_rack_tries_again_only_where_its_file_consents(tmp_path: Path, key: str) -> None:
    """A guest that fails once in three on real machines is a finding, and no reason to retry."""
    path = tmp_path / "rack.toml"
    text = (TOPOLOGIES / "x520-pair.toml").read_text()
    path.write_text(text.replace("cpus = 2", f"{key} = 2"))
    told = refusal(path)
    assert f"{path}:{line_of(key, path.read_text())}: guest.{key} is 2, and the machines" in told
    assert "retries_may_hide_faults = true" in told
    path.write_text(text.replace("cpus = 2", f"{key} = 2\nretries_may_hide_faults = true"))
    assert getattr(load(path).guest, key) == 2


CARD = '[hosts.alder.ports.p0]\npci = "0000:01:00.0"\ndevice = "82576"\n'
THIRD = '[hosts.cedar]\naddress = "127.0.0.1"\nport = 22024\nmigration_port = 4445\n'
ONE_MORE = CARD.replace("p0", "{}").replace("01:00.0", "0{}:00.0").format


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (CARD, "", "hosts.alder.ports are of 0 families; expected: ports of one"),
        (CARD, CARD + ONE_MORE("p1", 2), "hosts.alder.ports are 2; expected: 1 or fewer"),
        (CARD, CARD + ONE_MORE("p1", 2).replace("76", "99"), "are of 2 families"),
        (CARD, CARD + THIRD, "hosts are 3; expected: two"),
        ("[emulation]\n", "[emulation]\nports = 2\n", "emulation.ports is 2; expected: 1"),
        ("alder", "alder-of-the-lab", "would have alder-of-the-lab as the name of an interface"),
        ("birch", "wire", "hosts.wire would have wire as the name of an interface"),
    ],
)
def test_machines_that_no_emulated_lab_can_have_are_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "lab.toml"
    assert old in EMULATED
    path.write_text(EMULATED.replace(old, new))
    assert said in refusal(path)


@pytest.mark.parametrize("other", ["alder-1", "birch-of-a-lab"])
def test_the_taps_of_second_ports_have_names_of_their_own(tmp_path: Path, other: str) -> None:
    text = (TOPOLOGIES / "emulated-x520-da2.toml").read_text()
    path = tmp_path / "lab.toml"
    path.write_text(text.replace("birch", other))
    assert f"hosts.{other} would have {other}" in refusal(path)


def test_all_faults_of_a_file_are_told_at_once_and_in_its_order(tmp_path: Path) -> None:
    """Faults of one table and faults between tables are found by different code."""
    told = refusal(
        spoilt(
            tmp_path,
            ("52:54:00:12:34:56", "nonsense"),
            ("port = 22023", "port = 22022"),
            ('"peer"]', '"peer", "cedar.p0"]'),
            ("rate_pps", "rate"),
        )
    )
    keys = re.findall(r"spoilt\.toml:\d+: (\S+)", told)
    assert keys == ["hosts.birch.address", "guest.mac", "links[0].ends[3]", "limits.rate"]
    assert "4 faults" in told


def test_of_another_version_only_the_version_is_told(tmp_path: Path) -> None:
    """What a later version calls by other names is no fault of the person who wrote it."""
    told = refusal(spoilt(tmp_path, ("schema = 1", "schema = 2"), ("[hosts.alder]", "[nodes.a]")))
    assert "1 fault" in told
    assert "schema is 2" in told


def test_a_link_carries_what_its_weakest_port_can(tmp_path: Path) -> None:
    """9216 is the 82576's limit and 9710 the 82599's: together they carry 9216."""
    path = spoilt(tmp_path, ('"82576"', '"82599"'), ("mtu = 9000\n\n#", "mtu = 9500\n\n#"))
    assert "more than the 82576 can carry; expected: 9216 or less" in refusal(path)


def test_text_that_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    """The line is the standard library's own; it stands at the end of its message."""
    path = spoilt(tmp_path, ('name = "emulated-82576"', "name: emulated"))
    told = refusal(path)
    assert f"{path}:{line_of('name = ')}: is not TOML" in told
    assert 'key = "text"' in told


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'a = "', ":1: is not TOML"),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (b"\n\nname = '\xff'\n", ":3: is not UTF-8"),
        (b"", "hosts is missing"),
        (b"schema = 1\nhosts = 3\nlinks = 7\npeer = []\nguest = 0.5\n", "5 faults"),
        (b"schema = 1\nhosts = {a = 1, b = {ports = 2}}\nlinks = [1, {ends = 3}]\n", "such as"),
    ],
)
def test_content_of_the_wrong_kind_is_refused_in_words(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    """Each of these raised something else than our own error on the way to the models."""
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    assert expected in refusal(path)


def keys(node: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value in *node*, tables and lists included."""
    below = dict(enumerate(node)) if isinstance(node, list) else node
    for key, value in below.items() if isinstance(below, dict) else ():
        yield (*above, key)
        yield from keys(value, (*above, key))


@pytest.mark.parametrize("key", list(keys(tomllib.loads(EMULATED))), ids=dotted)
def test_whatever_stands_anywhere_the_answer_is_a_lab_or_a_refusal(
    monkeypatch: pytest.MonkeyPatch, key: tuple[str | int, ...]
) -> None:
    """Checks across tables see values before anything else has vouched for them."""
    refused = []
    for value in ODD_VALUES:
        raw = tomllib.loads(EMULATED)
        table = reduce(lambda node, part: node[part], key[:-1], cast(Any, raw))
        table[key[-1]] = value
        monkeypatch.setattr(reading, "tomllib", SimpleNamespace(loads=lambda _, raw=raw: raw))
        try:
            load(find("emulated"))
        except UsageError:
            refused.append(value)
    assert refused[-1] is ODD_VALUES[-1], "a date has no place in a topology"


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A folder, nothing at all, and a name no file can have."""
    assert "it is a directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none.toml")
    assert "too long" in refusal(find("x" * 300))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Editors on Windows write one, and the standard library's reader refuses it."""
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + EMULATED.encode())
    assert load(path).name == "emulated-82576"


def test_a_lab_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    """A name means our folder even when a file of that name lies around elsewhere."""
    assert find("emulated") == TOPOLOGIES / "emulated.toml"
    path = spoilt(tmp_path, ("[guest]", "[guest]"))
    assert find(path) == path
    assert find("spoilt", folder=tmp_path) == path


def test_an_unknown_lab_is_answered_with_the_labs_there_are() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'emulated'\?") as caught:
        find("emulatd")
    assert (
        "emulated-63-vfs, emulated-82576, emulated-x520-da2, emulated, twin, x520-pair"
        in caught.value.fix
    )


def test_a_topology_cannot_be_changed_after_it_was_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(find("emulated")).guest.mtu = 1500  # type: ignore[misc]
