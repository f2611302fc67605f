"""The lists of `npu-smi info -t …`: what each says of which chip, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sentinel_exporters.accelerator import DeviceProcess
from sentinel_exporters.npu.reading import Board, Details, Ecc
from sentinel_exporters.npu_smi import details
from sentinel_exporters.npu_smi.details import ByChip
from sentinel_exporters.npu_smi.errors import NotSupported
from sentinel_exporters.npu_smi.values import Damaged

FIXTURES = Path(__file__).parent / "fixtures" / "npu"
MIB = 2**20
Reader = Callable[[str], ByChip]

# file, how it is read, and what the eye reads in it by the chip's number.
EXPECTED: list[tuple[str, Reader, ByChip]] = [
    ("usages-910b.txt", details.read_usages, {0: Details(
        engines={"aicpu": 7, "ctrlcpu": 3, "vector": 18, "cube": 55, "overall": 66},
        has_utilization=True, hbm_percent=41, bandwidth_percent=29,
    )}),
    ("usages-910a.txt", details.read_usages, {0: Details(
        engines={"aicpu": 4, "ctrlcpu": 2},
        has_utilization=True, hbm_percent=92, bandwidth_percent=37,
    )}),
    ("usages-310p-duo.txt", details.read_usages, {
        0: Details(
            engines={"aicpu": 1, "ctrlcpu": 3, "vector": 9, "vdec": 33, "vpc": 4, "venc": 0,
                     "jpege": 0, "jpegd": 2},
            has_utilization=True, bandwidth_percent=50,
        ),
        1: Details(
            engines={"aicpu": 1, "ctrlcpu": 2, "vector": 0, "vdec": 0, "vpc": 4, "venc": 0,
                     "jpege": 0, "jpegd": 2},
            has_utilization=True, bandwidth_percent=48,
        ),
    }),
    ("usages-310b.txt", details.read_usages, {0: Details(
        engines={"aicpu": 5, "ctrlcpu": 31}, has_utilization=True, bandwidth_percent=17,
    )}),
    ("usages-950.txt", details.read_usages, {None: Details(
        engines={"aicpu": 0, "ctrlcpu": 8, "vector": 1, "cube": 5, "overall": 7},
        has_utilization=True, hbm_percent=2, bandwidth_percent=3,
    )}),
    ("usages-910b-split.txt", details.read_usages, {0: Details(
        engines={}, has_utilization=False, hbm_percent=6, bandwidth_percent=0,
    )}),
    ("common-910b.txt", details.read_common, {
        0: Details(aicore_hertz=1650e6, aicores=20, power_watts=211.5),
    }),
    ("common-310p-duo.txt", details.read_common, {
        0: Details(aicore_hertz=960e6, power_watts=47.6), 1: Details(aicore_hertz=800e6),
    }),
    ("common-310b.txt", details.read_common, {0: Details(power_watts=12.7)}),
    ("common-950.txt", details.read_common, {
        None: Details(aicore_hertz=1500e6, aicores=36, power_watts=288.7),
    }),
    ("power-310p-22.0.txt", details.read_common, {0: Details(power_watts=17.4)}),
    ("power-310p-25.0.txt", details.read_common, {0: Details(power_watts=18.2)}),
    ("memory-910b.txt", details.read_memory, {0: Details(memory_celsius=48)}),
    ("volt-910b.txt", details.read_voltage, {0: Details(voltage_volts=0.87)}),
    ("volt-310p-duo.txt", details.read_voltage, {
        0: Details(voltage_volts=0.79), 1: Details(),
    }),
    ("ecc-910a.txt", details.read_ecc, {0: Details(
        hbm_ecc=Ecc((2, 1), (40, 3), (4, 2)), ddr_ecc=Ecc((1, 0), (5, 0), (1, 0)),
    )}),
    ("ecc-910b.txt", details.read_ecc, {0: Details(hbm_ecc=Ecc((0, 0), (17, 1), (2, 1)))}),
    ("ecc-310p-duo.txt", details.read_ecc, {
        0: Details(ddr_ecc=Ecc((0, 0), (3, 0), (0, 0))),
        1: Details(ddr_ecc=Ecc((0, 2), (0, 2), (0, 1))),
    }),
    ("ecc-310b.txt", details.read_ecc, {0: Details(ddr_ecc=Ecc((4, 0)))}),
    ("health-ok.txt", details.read_health, {None: Details(error_codes=())}),
    ("health-alarm.txt", details.read_health, {
        None: Details(error_codes=("80E01801", "80CB8009")),
    }),
    ("health-950.txt", details.read_health, {None: Details(error_codes=("A6361000",))}),
    ("board-910b.txt", details.read_board, {None: Details(board=Board(
        "Ascend", "910B2", "V1", "5A01F00D-11223344-0BADCAFE-90ABCDEF-01020304",
    ))}),
    ("board-910c.txt", details.read_board, {None: Details(board=Board(
        "", "Ascend910", "V1", "6B02F11E-21324354-1CBEDBAF-A1BCDEF0-11121314",
    ))}),
    ("proc-mem-310p-duo.txt", details.read_process_memory, {
        0: Details(processes=(
            DeviceProcess(204011, 1201 * MIB), DeviceProcess(204190, 455 * MIB),
        )),
        1: Details(processes=()),
    }),
    ("proc-mem-910a.txt", details.read_process_memory, {
        0: Details(processes=(DeviceProcess(3229001, 30112 * MIB),)),
    }),
    ("proc-mem-one-chip.txt", details.read_process_memory, {
        None: Details(processes=(DeviceProcess(899201, 57010 * MIB),)),
    }),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reader", "expected"), EXPECTED, ids=[e[0] for e in EXPECTED])
def test_a_list_says_what_the_eye_reads(name: str, reader: Reader, expected: ByChip) -> None:
    assert reader((FIXTURES / name).read_text()) == expected


@pytest.mark.parametrize(("name", "reader", "expected"), EXPECTED, ids=[e[0] for e in EXPECTED])
def test_line_ends_spaces_and_log_lines_change_nothing(
    name: str, reader: Reader, expected: ByChip
) -> None:
    lines = ["DrvMngGetConsoleLogLevel failed. (ret=4)", "[ERROR] drv: 3"]
    for line in (FIXTURES / name).read_text().splitlines():
        lines += [f"  {line}   ".replace(" : ", "      :  "), "2024-02-02 10:00:00 dcmi up"]
    assert reader("\r\n".join(lines) + "\r\n") == expected


def test_the_network_is_told_in_the_tools_word() -> None:
    assert details.read_network("net health status: Success\n") == {
        None: Details(network="Success")
    }
    text = "[WARN] slow\r\nnet health status : Receive timeout \r\n"
    assert details.read_network(text) == {None: Details(network="Receive timeout")}


NETWORK: list[Reader] = [details.read_network, details.read_bandwidth]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_networks_traffic_is_told_both_ways(end: str) -> None:
    text = (
        f"[WARN] slow{end}Bandwidth TX:  1234.56 MB/sec{end}Bandwidth RX:     0.00 MB/sec{end}"
    )
    assert details.read_bandwidth(text) == {
        None: Details(
            network_transmitted_bytes_per_s=1_234_560_000, network_received_bytes_per_s=0
        )
    }


@pytest.mark.parametrize(
    "text",
    [
        "Bandwidth TX:  1234.56 MB/sec\n",
        "Bandwidth TX:  1.00 MB/sec\nBandwidth RX:  NA MB/sec\n",
        "Bandwidth TX:  1.00 MB/sec\nBandwidth RX:  -1.00 MB/sec\n",
        "Bandwidth TX:  1.00 GB/sec\nBandwidth RX:  1.00 GB/sec\n",
        "Bandwidth TX:  1.00 MB/sec\nBandwidth RX:  1.0",
    ],
)
def test_traffic_that_is_not_told_in_full_is_damage(text: str) -> None:
    with pytest.raises(Damaged):
        details.read_bandwidth(text)


@pytest.mark.parametrize("reader", [one for _, one, _ in EXPECTED] + NETWORK)
@pytest.mark.parametrize(
    "text",
    [
        "This device does not support querying usages.\n",
        "Error parameter of -t\nUsage: npu-smi info <watch|proc> [Options...]\n",
        "NPU is working in SMP mode, does not support querying ecc\n",
        "This command cannot be executed on a VM or container.\n",
    ],
)
def test_what_a_device_does_not_support_is_no_damage(reader: Reader, text: str) -> None:
    with pytest.raises(NotSupported):
        reader(text)


def test_a_head_without_values_is_not_supported_where_the_tool_says_so() -> None:
    head = "\tNPU ID                         : 0\n\tChip Count                     : 1\n\n"
    with pytest.raises(NotSupported):
        details.read_voltage(head + "This device does not support querying volt.\n")
    with pytest.raises(Damaged):
        details.read_voltage(head)


@pytest.mark.parametrize("reader", [one for _, one, _ in EXPECTED] + NETWORK)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "Invalid card id.\nError parameter of -i\nUsage: npu-smi info <watch|proc>\n",
        "dcmi module initialize failed. ret is -8005\n",
        "some new words\n",
        "A new name                      : 7\nChip ID                        : 0\n",
    ],
)
def test_what_is_not_known_is_damage(reader: Reader, text: str) -> None:
    with pytest.raises(Damaged):
        reader(text)


def changed(name: str, old: str, new: str) -> str:
    text = (FIXTURES / name).read_text()
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("usages-910b.txt", ": 62", ": 6 2", None),
        ("usages-910b.txt", ": 18", ": 1 8", "aivector usage rate: '1 8' is not a reading"),
        ("usages-910b.txt", ": 66", ": 101", "npu utilization: '101' is not a reading"),
        ("usages-910b.txt", "Aicpu Usage Rate(%)", "Aicpu Usage Rate(W)", "the unit is 'W'"),
        ("usages-910b.txt", "Chip Count                     : 1",
         "Chip Count                     : 2", "it tells 1 of 2 chips"),
        ("usages-310p-duo.txt", "Chip ID                        : 1",
         "Chip ID                        : 0", "a chip is there twice"),
        ("usages-310p-duo.txt", "DVPP VENC", "DVPP VPC", "usage rate' is there twice"),
        ("common-910b.txt", ": 1650", ": fast", "aicore curfreq: 'fast' is not a reading"),
        ("common-910b.txt", ": 20", ": 20.5", "aicore count: 20.5 is not a whole number"),
        ("memory-910b.txt", ": 48", ": 48C", "hbm temperature: '48C' is not a reading"),
        ("ecc-910b.txt", ": 17", ": -17", "'-17' is not a reading"),
        ("health-alarm.txt", "80CB8009", "80CB800G", "'80CB800G' is not an error code"),
        ("proc-mem-910a.txt", ":3229001", ":many", "a line is not known"),
        ("proc-mem-910a.txt", "memory(MB)", "memory(TB)", "its unit of memory is not known"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_right_is_refused_with_its_name(
    name: str, old: str, new: str, reason: str | None
) -> None:
    reader = next(one for known, one, _ in EXPECTED if known == name)
    text = changed(name, old, new)
    if reason is None:  # a value that is not used is not judged
        reader(text)
        return
    with pytest.raises(Damaged) as refused:
        reader(text)
    assert reason in str(refused.value)


def test_the_bandwidth_of_a_memory_that_there_is_not_is_not_told() -> None:
    # A 910B has no DDR, and shows zeros for it.
    (told,) = details.read_usages(changed("usages-910b.txt", ": 29", ": NA")).values()
    assert told.bandwidth_percent is None


@pytest.mark.parametrize(("name", "reader", "expected"), EXPECTED, ids=[e[0] for e in EXPECTED])
def test_a_torn_list_says_nothing_that_the_whole_does_not(
    name: str, reader: Reader, expected: ByChip
) -> None:
    text = (FIXTURES / name).read_text()
    for end in range(len(text)):
        try:
            torn = reader(text[:end])
        except (Damaged, NotSupported):
            continue
        for chip_id, told in torn.items():
            whole = expected[chip_id]
            for field, value in vars(told).items():
                if field in {"has_utilization", "processes"} or value in (None, {}):
                    continue
                if field == "engines":
                    assert value.items() <= (whole.engines or {}).items()
                else:
                    assert value == getattr(whole, field), (end, field)


def test_processes_of_a_torn_list_are_not_told_in_part() -> None:
    for name in ("proc-mem-310p-duo.txt", "proc-mem-910a.txt"):
        text = (FIXTURES / name).read_text()
        whole = details.read_process_memory(text)
        for end in range(len(text)):
            try:
                torn = details.read_process_memory(text[:end])
            except (Damaged, NotSupported):
                continue
            assert torn.items() <= whole.items()
