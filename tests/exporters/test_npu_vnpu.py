"""A chip that is split: its vNPUs, what their templates have, and what is not known of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_exporters.collectors.npu import parse
from sentinel_exporters.npu.reading import Details, Template, Vnpu, merge_details
from sentinel_exporters.npu_smi.details import read_usages
from sentinel_exporters.npu_smi.errors import NotSupported
from sentinel_exporters.npu_smi.info import parse_info
from sentinel_exporters.npu_smi.values import Damaged
from sentinel_exporters.npu_smi.vnpu import read_templates, read_vnpus
from tests.exporters.npu_series import make_reading, series
from tests.exporters.npu_tables import Row, Table

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
GIB = 2**30


def read(name: str) -> str:
    return (FIXTURES / name).read_text()


TWO = Details(
    vnpus=(
        Vnpu(100, "0", "3f9a11c2d004", True, "vir10_3c_32g"),
        Vnpu(103, "1", "", False, "vir05_1c_16g"),
    ),
    free_aicores=5,
    aicores=20,
)


def test_each_vnpu_has_its_template_and_its_container() -> None:
    assert read_vnpus(read("vnpu-910b-two.txt")) == {None: TWO}


def test_what_the_table_calls_na_is_not_told() -> None:
    assert read_vnpus(read("vnpu-310p-one.txt")) == {
        None: Details(vnpus=(Vnpu(212, "", "", None, "vir04"),), free_aicores=4, aicores=8)
    }


def test_a_chip_that_is_not_split_has_no_vnpus() -> None:
    assert read_vnpus(read("vnpu-none.txt")) == {
        None: Details(vnpus=(), free_aicores=20, aicores=20)
    }


def test_the_templates_say_what_a_vnpu_has() -> None:
    assert read_templates(read("template-910b.txt")) == {
        None: Details(
            templates={
                "vir10_3c_32g": Template(10, 32 * GIB),
                "vir10_4c_32g_m": Template(10, 32 * GIB),
                "vir05_1c_16g": Template(5, 16 * GIB),
            }
        )
    }


@pytest.mark.parametrize(
    "text",
    [
        "The vnpu is not in docker mode, does not support querying info-vnpu.\n",
        "NPU is working in SMP mode, does not support vnpu query.\n",
        "This command cannot be executed on a VM or container.\n",
        "This device does not support querying info-vnpu.\n",
    ],
)
def test_a_chip_that_cannot_be_split_is_no_damage(text: str) -> None:
    for reader in (read_vnpus, read_templates):
        with pytest.raises(NotSupported):
            reader(text)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("of vnpu: 2", "of vnpu: 3", "it lists 2 of 3 vNPUs"),
        ("Total number of", "How many", "does not say how many"),
        ("|  100  ", "|  one  ", "'one' is not a whole number"),
        ("|  0             |  3f9a", "|  3f9a", "a vNPU's row is not known"),
        ("| 5/20 ", "| 5 /20 ", "the resources are not known"),
        ("| 5/20 ", "| ?/20 ", "'?' is not a whole number"),
        ("NPU resource static", "Resources", "does not tell the chip's resources"),
        ("Template Name       |", "Name |", "it lists 0 of 2 vNPUs"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(old: str, new: str, reason: str) -> None:
    text = read("vnpu-910b-two.txt")
    assert old in text
    with pytest.raises(Damaged, match=r".") as refused:
        read_vnpus(text.replace(old, new, 1))
    assert reason in str(refused.value)


@pytest.mark.parametrize("name", ["vnpu-910b-two.txt", "vnpu-none.txt", "template-910b.txt"])
def test_a_torn_table_is_refused_or_says_what_the_whole_says(name: str) -> None:
    text = read(name)
    reader = read_templates if name.startswith("template") else read_vnpus
    whole = reader(text)[None]
    for end in range(len(text) - 1):
        try:
            torn = reader(text[:end])[None]
        except (Damaged, NotSupported):
            continue
        # Templates that are cut off between two rows are missing, none is another.
        assert torn.vnpus == whole.vnpus
        assert (torn.templates or {}).items() <= (whole.templates or {}).items()


def test_a_vnpus_series_are_its_chips() -> None:
    row = Row("3", "0", bus="0000:C1:00.0", aicore="0")
    info = parse_info(Table([row]).text())
    details = merge_details(
        [TWO, *read_templates(read("template-910b.txt")).values(),
         *read_usages(read("usages-910b-split.txt")).values()]
    )  # fmt: skip
    samples = parse(make_reading(info, {(3, 0): 6}, {(3, 0): details})).samples
    key = ("npu-0000:C1:00.0", "6")
    assert series(samples, "accelerator_vnpu_info") == {
        (*key, "100", "0", "vir10_3c_32g", "3f9a11c2d004"): 1,
        (*key, "103", "1", "vir05_1c_16g", ""): 1,
    }
    assert series(samples, "accelerator_vnpu_in_use") == {(*key, "100"): 1, (*key, "103"): 0}
    assert series(samples, "accelerator_vnpu_cores") == {(*key, "100"): 10, (*key, "103"): 5}
    assert series(samples, "accelerator_vnpu_memory_bytes") == {
        (*key, "100"): 32 * GIB,
        (*key, "103"): 16 * GIB,
    }
    assert series(samples, "accelerator_vnpu_free_cores") == {key: 5}
    assert series(samples, "accelerator_cores") == {key: 20}
    # The table of all chips shows 0 for it, which means that the driver cannot tell.
    assert series(samples, "accelerator_utilization_ratio") == {}


def test_a_chip_that_is_not_split_has_no_free_cores() -> None:
    info = parse_info(Table([Row("3", "0")]).text())
    (told,) = read_vnpus(read("vnpu-none.txt")).values()
    samples = parse(make_reading(info, None, {(3, 0): told})).samples
    assert series(samples, "accelerator_vnpu_free_cores") == {}
    assert list(series(samples, "accelerator_cores").values()) == [20]


def test_a_vnpu_whose_template_is_not_known_has_no_size() -> None:
    info = parse_info(Table([Row("3", "0")]).text())
    samples = parse(make_reading(info, None, {(3, 0): TWO})).samples
    assert len(series(samples, "accelerator_vnpu_info")) == 2
    assert series(samples, "accelerator_vnpu_cores") == {}
    assert series(samples, "accelerator_vnpu_memory_bytes") == {}
