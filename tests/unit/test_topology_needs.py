"""What a lab offers, what its README says of it, and the schema that editors use."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.topology import TOPOLOGIES, WORDS, Topology, find, load, schema

HOST = """
[hosts.{name}]
address = "192.0.2.{number}"
[hosts.{name}.ports.p0]
pci = "0000:17:00.0"
device = "{device}"
vfs = {vfs}
"""
PEER = """
[peer]
transport = "local"
interface = "eth1"
address = "198.18.0.1/24"
"""
REST = """
[guest]
address = "198.18.0.2/24"
mac = "52:54:00:12:34:56"
mtu = 9000
[[links]]
ends = ["a.p0", "{end}"]
mbit = 10_000
mtu = {mtu}
"""


def lab(
    folder: Path,
    *,
    devices: tuple[str, ...] = ("82599", "82599"),
    peer: bool = True,
    mtu: int = 9000,
    offers: str = "",
    vfs: int = 2,
) -> Topology:
    """Write and read a lab with a host for each of *devices*: a, b and so on."""
    hosts = [
        HOST.format(name="abc"[number], number=number + 1, device=device, vfs=vfs)
        for number, device in enumerate(devices)
    ]
    rest = REST.format(end="peer" if peer else "b.p0", mtu=mtu)
    if mtu < 9000:
        rest = rest.replace("mtu = 9000\n", "")
    text = f'schema = 1\nname = "small"\noffers = [{offers}]\n'
    path = folder / "small.toml"
    path.write_text(text + "".join(hosts) + (PEER if peer else "") + rest)
    return load(path)


def test_words_that_a_file_shows_need_not_be_stated() -> None:
    assert load(find("emulated-82576")).offered == {
        *("two-hosts", "vf", "sriov", "two-vfs", "peer", "jumbo", "82576", "iommu", "wire", "msix"),
    }
    by_ixgbe = {"82599", "jumbo-rule", "vf-link-state", "vf-spoof-check"}
    assert by_ixgbe <= load(find("x520-pair")).offered
    assert by_ixgbe | {"dma-log", "software-vf"} <= load(find("emulated")).offered


def test_a_lab_of_twins_lends_vfs_and_has_no_port() -> None:
    """A test that is about ports must not run there, and one that is about a VF must."""
    twins = load(find("twin"))
    assert twins.offered == {
        *("two-hosts", "vf", "two-vfs", "twin", "ixgbevf", "peer", "jumbo", "wire", "dma-log"),
        "software-vf",
        *("msix", "migration-capability", "jumbo-rule", "vf-link-state", "vf-spoof-check"),
    }
    assert [str(each)[:60] for each in twins.unmet(["sriov"])] == [
        "needs sriov: lab 'twin' has no port on alder and birch (topo"
    ]


def test_an_unmet_need_names_the_need_what_there_is_and_the_line() -> None:
    """The reason of a skip is read far from the lab: it must lead to the line to look at."""
    (unmet,) = load(find("emulated-82576")).unmet(["two-hosts", "82599"])
    text = (TOPOLOGIES / "emulated-82576.toml").read_text()
    line = text[: text.index("device =")].count("\n") + 1
    assert str(unmet).startswith("needs 82599: lab 'emulated-82576' has 82576 (")
    assert str(unmet).endswith(f"topologies/emulated-82576.toml:{line})")


def test_every_word_that_is_met_is_not_among_the_unmet(tmp_path: Path) -> None:
    """`offered` and `unmet` are asked by different callers and must not disagree."""
    small = lab(tmp_path, offers='"iommu"')
    assert {need.need for need in small.unmet(WORDS)} == set(WORDS) - small.offered


@pytest.mark.parametrize(
    ("described", "need", "found", "line"),
    [
        ({"devices": ("82599",)}, "two-hosts", "1 host", "[hosts.a]"),
        ({"vfs": 1}, "two-vfs", "one VF on a.p0 and b.p0", "vfs = 1"),
        ({"vfs": 62}, "all-vfs", "not all VFs on a.p0 and b.p0", "vfs = 62"),
        ({"peer": False}, "peer", "no peer", None),
        ({"mtu": 1500}, "jumbo", "an MTU of 1500", "mtu = 1500"),
        ({}, "twin", "no twin on a and b", "[hosts.a]"),
        ({}, "msix", "no capability msix among those described: none", None),
        ({}, "iommu", "no offers", "offers"),
        ({"offers": '"iommu"'}, "shared-storage", "only iommu among its offers", "offers"),
        ({"devices": ("X540", "X550")}, "82599", "X540 and X550", 'device = "X540"'),
        ({"devices": ("82599", "X550")}, "82599", "X550", 'device = "X550"'),
        ({"devices": ("82599", "X550")}, "jumbo-rule", "X550", 'device = "X550"'),
        ({"devices": ("82599", "82576")}, "vf-link-state", "82576", 'device = "82576"'),
    ],
)
def test_each_need_tells_what_the_lab_has_instead(
    tmp_path: Path, described: dict[str, Any], need: str, found: str, line: str | None
) -> None:
    """One host that has it is not enough: a guest migrates from one to the other."""
    small = lab(tmp_path, **described)
    (unmet,) = small.unmet([need])
    assert (unmet.need, unmet.found) == (need, found)
    assert need not in small.offered
    if line is None:
        assert unmet.place.endswith("small.toml")
    else:
        text = (tmp_path / "small.toml").read_text()
        assert unmet.place.endswith(f":{text[: text.index(line)].count(chr(10)) + 1}")


def test_a_lab_without_ports_and_links_has_no_sriov_and_no_jumbo(tmp_path: Path) -> None:
    """What needs a port must be skipped there, not crash."""
    lab(tmp_path)
    path = tmp_path / "small.toml"
    bare = re.sub(
        r"\[hosts\.\w\.ports\.p0\]\npci.*\ndevice.*\nvfs.*\n|\[\[links\]\](.*\n)*",
        "",
        path.read_text(),
    )
    path.write_text(bare)
    assert [
        need.found for need in load(path).unmet(["vf", "sriov", "two-vfs", "82599", "jumbo"])
    ] == [
        "neither port nor twin on a and b",
        "no port on a and b",
        "neither port nor twin on a and b",
        "no port on a and b",
        "an MTU of 1500",
    ]


SECOND = """
[hosts.{name}.ports.{port}]
pci = "0000:17:00.1"
device = "82599"
"""


def with_more_ports(folder: Path, *, a: str, b: str, wired: str) -> Topology:
    """A lab whose hosts have a second port, so called; *wired* are further ends of its link."""
    lab(folder)
    path = folder / "small.toml"
    text = path.read_text().replace('ends = ["a.p0", "peer"]', f'ends = ["a.p0", {wired} "peer"]')
    for name, port in (("a", a), ("b", b)):
        text += SECOND.format(name=name, port=port) if port else ""
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    ("a", "b", "wired", "pairs"),
    [
        ("p1", "p1", '"b.p0", "a.p1", "b.p1",', [("p0", "p0"), ("p1", "p1")]),
        ("east", "west", '"b.p0", "a.east", "b.west",', [("p0", "p0"), ("east", "west")]),
        ("p1", "", '"b.p0", "a.p1",', [("p0", "p0")]),
        ("p1", "p1", '"b.p0",', [("p0", "p0")]),
        ("p1", "p1", '"b.p1",', [("p0", "p1")]),
        ("", "", "", [("p0", "p0")]),
    ],
    ids=["both", "other names", "one host", "not on the wire", "another one", "links left out"],
)
def test_a_guest_moves_between_ports_that_are_on_the_peers_wire(
    tmp_path: Path, a: str, b: str, wired: str, pairs: list[tuple[str, str]]
) -> None:
    """A port without a like is used by no test: it must be neither looked at nor changed."""
    small = with_more_ports(tmp_path, a=a, b=b, wired=wired)
    assert small.port_pairs == tuple({"a": first, "b": second} for first, second in pairs)
    assert [list(small.host_in_use("a").ports), list(small.host_in_use("b").ports)] == [
        [first for first, _ in pairs], [second for _, second in pairs],
    ]  # fmt: skip


def test_hosts_of_twins_have_one_pair_of_no_ports() -> None:
    assert load(find("twin")).port_pairs == ({},)


def test_an_unknown_need_is_our_callers_mistake(tmp_path: Path) -> None:
    """Taken for a need that no lab meets, a slip in a marker would skip its test for ever."""
    with pytest.raises(UsageError, match=r"'jumo'.*did you mean 'jumbo'\?") as caught:
        lab(tmp_path).unmet(["two-hosts", "jumo"])
    assert "vf-link-state" in caught.value.fix


def test_an_unknown_machine_is_our_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="describes a, b\n") as caught:
        lab(tmp_path, peer=False).connection("peer")
    assert "no machine called 'peer'" in caught.value.what


SECTIONS = {
    "Top of the file": "Topology",
    "`[hosts.<host>]`": "HostEntry",
    "`[hosts.<host>.ports.<port>]`": "PortEntry",
    "`[hosts.<host>.twin]`": "TwinEntry",
    "`[peer]`": "PeerEntry",
    "`[guest]`": "GuestEntry",
    "`[[links]]`": "LinkEntry",
    "`[capabilities.<capability>]`": "CapabilityEntry",
    "`[capabilities.<capability>.fields.<field>]`": "FieldEntry",
    "`[limits]`": "Limits",
    "`[emulation]`": "Emulation",
}


def rows(text: str) -> dict[str, tuple[str, str]]:
    """Read the tables in *text*: key to (meaning, default)."""
    found = re.findall(r"^\| `([^`]+)` \| (.+?) \|(?: (.+) \|)?$", text, re.MULTILINE)
    return {key: (meaning, default) for key, meaning, default in found}


def documented(node: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Say what the README should: a table of its own has its defaults in its own section."""
    return {
        key: (
            value["description"],
            "needed"
            if key in node.get("required", ())
            else "-"
            if value.get("default") is None or isinstance(value["default"], dict)
            else f"`{json.dumps(value['default'])}`",
        )
        for key, value in node["properties"].items()
    }


@pytest.mark.parametrize(("section", "model"), SECTIONS.items())
def test_readme_has_every_key_its_meaning_and_its_default(section: str, model: str) -> None:
    """Meanings and defaults are written in the models; the README is their copy."""
    readme = (TOPOLOGIES / "README.md").read_text()
    (body,) = re.findall(rf"^### {re.escape(section)}\n(.*?)(?=^##|\Z)", readme, re.M | re.S)
    node = schema() if model == "Topology" else schema()["$defs"][model]
    assert rows(body) == documented(node)


def test_readme_has_every_word_a_test_may_need() -> None:
    readme = (TOPOLOGIES / "README.md").read_text()
    body = readme.partition("## What a lab offers")[2]
    assert {word: meaning for word, (meaning, _) in rows(body).items()} == {
        name: word.meaning for name, word in WORDS.items()
    }


def test_every_key_of_the_schema_has_a_meaning_and_an_example_or_default() -> None:
    """Messages are made of them: a key without would be refused with no way to mend it."""
    whole = schema()
    nodes = [whole, *whole["$defs"].values()]
    bare = [
        key
        for node in nodes
        for key, value in node["properties"].items()
        if "description" not in value or not value.get("examples")
    ]
    assert bare == []
    assert whole["$schema"].endswith("2020-12/schema")
    json.dumps(whole)
