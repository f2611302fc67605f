"""The families of Huawei's npu-exporter, from a reading of the NPUs. Asks no tool or driver.

Names, labels and units are those of the exporter in MindCluster (component/npu-exporter,
collector/metrics): memory in MB that are MiB, utilisation in percent, clocks in MHz, health as
1, 0, and -1 for unknown. What npu-smi does not tell (optical modules, RoCE, HCCS, UB and PCIe
counters, containers and pods) has no sample here, and the labels of pods are empty. A chip
whose physical id is not known is counted and has no other sample: it has no `id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .. import __version__
from ..core import Compat, Metric, Sample
from ..npu.reading import Chip, Ecc, Reading

_POD = ("namespace", "pod_name", "container_name")
_CARD = ("id", "model_name", "vdie_id", "pcie_bus_info", *_POD)
_NO_POD = ("", "", "")
_MEBIBYTE = 2**20
# The exporter has 128, the first without a number; all of them are in accelerator_error_code.
_ERROR_CODES = 8

NUMBER = Metric("machine_npu_nums", "gauge", "Amount of npu installed on the machine.")
CARDS = Metric("machine_card_nums", "gauge", "Amount of card installed on the machine.")
VERSION = Metric(
    "npu_exporter_version_info", "gauge", "Always 1; the exporter.", ("exporterVersion",)
)
NAME = Metric(
    "npu_chip_info_name",
    "gauge",
    "Always 1; the chip's name.",
    ("id", "name", "vdie_id", "pcie_bus_info", *_POD),
)
PROCESS = Metric(
    "npu_chip_info_process_info",
    "gauge",
    "Memory of a process in MB; 0 without a process.",
    (*_CARD, "process_id", "container_id"),
)
_FAMILIES: Mapping[str, Metric] = {
    name: Metric(f"npu_chip_info_{name}", "gauge", help_text, _CARD)
    for name, help_text in {
        "utilization": "Utilisation of the AI cores in percent.",
        "overall_utilization": "Utilisation of the NPU in percent.",
        "vector_utilization": "Utilisation of the vector cores in percent.",
        "cube_utilization": "Utilisation of the cube cores in percent.",
        "temperature": "Temperature of the chip in degrees Celsius.",
        "power": "Power in watts.",
        "voltage": "Voltage in volts.",
        "aicore_current_freq": "Frequency of the AI cores in MHz.",
        "health_status": "Health: 1 healthy, 0 not, -1 unknown.",
        "network_status": "Health of the network: 1 healthy, 0 not.",
        "bandwidth_tx": "Traffic that the network sends, in MB a second.",
        "bandwidth_rx": "Traffic that the network receives, in MB a second.",
        "process_info_num": "Processes on the chip.",
        "used_memory": "DDR memory in use, in MB.",
        "total_memory": "DDR memory in MB.",
        "hbm_used_memory": "HBM in use, in MB.",
        "hbm_total_memory": "HBM in MB.",
        "hbm_utilization": "Utilisation of the HBM in percent.",
        "hbm_temperature": "Temperature of the HBM in degrees Celsius.",
        "hbm_bandwidth_utilization": "HBM bandwidth in use, in percent.",
        "hbm_ecc_single_bit_error_cnt": "Corrected errors of the HBM.",
        "hbm_ecc_double_bit_error_cnt": "Uncorrected errors of the HBM.",
        "hbm_ecc_total_single_bit_error_cnt": "Corrected errors in the chip's life.",
        "hbm_ecc_total_double_bit_error_cnt": "Uncorrected errors in the chip's life.",
        "hbm_ecc_single_bit_isolated_pages_cnt": "Pages out of use for corrected errors.",
        "hbm_ecc_double_bit_isolated_pages_cnt": "Pages out of use for uncorrected errors.",
    }.items()
}
_CODE_FAMILIES = tuple(
    Metric(
        "npu_chip_info_error_code" + (f"_{number}" if number else ""),
        "gauge",
        "Code of a fault that there is now, as a decimal number.",
        _CARD,
    )
    for number in range(_ERROR_CODES)
)
_HEALTH = {"OK": 1, "UNKNOWN": -1, "NA": -1, "-": -1}
# A reading under the name of its family without npu_chip_info_; None: there is none.
_Values = Iterator[tuple[str, float | None]]


def _samples(reading: Reading) -> list[Sample]:
    samples = [
        NUMBER.sample(len(reading.chips)),
        CARDS.sample(len({chip.npu_id for chip in reading.chips})),
        VERSION.sample(1, f"sentinel-exporter-{__version__}"),
    ]
    for chip in reading.chips:
        if chip.physical_id is None:
            continue  # under a guessed id it would be another chip
        labels = _labels(chip)
        samples.append(NAME.sample(1, *labels))
        values = {**dict(_of_table(chip, reading)), **dict(_of_details(chip))}
        samples += [
            _FAMILIES[name].sample(value, *labels)
            for name, value in values.items()
            if value is not None
        ]
        codes = chip.details.error_codes or ()
        for family, code in zip(_CODE_FAMILIES, codes, strict=False):
            samples.append(family.sample(int(code, 16), *labels))
        samples += _of_processes(chip, labels)
    return samples


def _labels(chip: Chip) -> tuple[str, ...]:
    board = chip.details.board
    name = chip.name
    if board:  # name-type-version, as 910B2-Ascend-V1
        name = "-".join((board.chip_name, board.chip_type, board.chip_version))
    vdie_id = board.vdie_id if board else ""
    return (str(chip.physical_id), name, vdie_id, chip.bus_id or "", *_NO_POD)


def _of_table(chip: Chip, reading: Reading) -> _Values:
    yield "utilization", chip.aicore_percent
    yield "temperature", chip.temperature_celsius
    yield "power", _power(chip, reading)
    yield "health_status", _HEALTH.get(chip.health.upper(), 0)
    if chip.processes is not None:
        yield "process_info_num", len(chip.processes)
    if chip.ddr:
        yield "used_memory", chip.ddr.used // _MEBIBYTE
        yield "total_memory", chip.ddr.total // _MEBIBYTE
    if chip.hbm:
        yield "hbm_used_memory", chip.hbm.used // _MEBIBYTE
        yield "hbm_total_memory", chip.hbm.total // _MEBIBYTE


def _power(chip: Chip, reading: Reading) -> float | None:
    """Return the chip's power; of a 310P, as the exporter does, that of its card."""
    if chip.power_watts is not None or not chip.name.startswith("310P"):
        return chip.power_watts
    on_card = [one.power_watts for one in reading.chips if one.npu_id == chip.npu_id]
    return next((power for power in on_card if power is not None), None)


def _of_details(chip: Chip) -> _Values:
    details = chip.details
    engines = details.engines or {}
    yield "overall_utilization", engines.get("overall")
    yield "vector_utilization", engines.get("vector")
    yield "cube_utilization", engines.get("cube")
    yield "voltage", details.voltage_volts
    if details.aicore_hertz is not None:
        yield "aicore_current_freq", details.aicore_hertz / 1e6
    if details.network is not None:
        # Init, before anything was detected, counts as healthy there.
        yield "network_status", float(details.network.upper() in {"SUCCESS", "INIT"})
    if details.network_transmitted_bytes_per_s is not None:
        yield "bandwidth_tx", details.network_transmitted_bytes_per_s / 1e6
    if details.network_received_bytes_per_s is not None:
        yield "bandwidth_rx", details.network_received_bytes_per_s / 1e6
    if chip.hbm:
        yield "hbm_utilization", details.hbm_percent
        yield "hbm_temperature", details.memory_celsius
        yield "hbm_bandwidth_utilization", details.bandwidth_percent
        yield from _of_ecc(details.hbm_ecc or Ecc())


def _of_ecc(ecc: Ecc) -> _Values:
    if ecc.recent:
        yield "hbm_ecc_single_bit_error_cnt", ecc.recent[0]
        yield "hbm_ecc_double_bit_error_cnt", ecc.recent[1]
    if ecc.lifetime:
        yield "hbm_ecc_total_single_bit_error_cnt", ecc.lifetime[0]
        yield "hbm_ecc_total_double_bit_error_cnt", ecc.lifetime[1]
    if ecc.pages:
        yield "hbm_ecc_single_bit_isolated_pages_cnt", ecc.pages[0]
        yield "hbm_ecc_double_bit_isolated_pages_cnt", ecc.pages[1]


def _of_processes(chip: Chip, labels: tuple[str, ...]) -> Iterator[Sample]:
    if chip.processes is None:
        return
    if not chip.processes:
        yield PROCESS.sample(0, *labels, "", "")
    for one in chip.processes:
        # One whose number is not told has no series.
        if one.pid and one.memory_bytes is not None:
            yield PROCESS.sample(one.memory_bytes // _MEBIBYTE, *labels, str(one.pid), "")


NPU_EXPORTER = Compat(
    (NUMBER, CARDS, VERSION, NAME, PROCESS, *_FAMILIES.values(), *_CODE_FAMILIES), _samples
)
