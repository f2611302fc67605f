"""Readings of GPUs as values: one that tells everything, one that is split. Asks no driver."""

from __future__ import annotations

from sentinel_exporters.accelerator import DeviceProcess
from sentinel_exporters.gpu.reading import (
    Activity,
    Ecc,
    Facts,
    Gpu,
    Instance,
    Memory,
    Mig,
    NvLinks,
    Pcie,
    Reading,
    RemappedRows,
    RetiredPages,
    Xid,
)

MIB = 2**20
FACTS = Facts(
    uuid="GPU-11111111-aaaa",
    index=0,
    model="NVIDIA H100 80GB HBM3",
    bus_id="0000:C1:00.0",
    minor=3,
    serial="1650823001234",
    vbios_version="96.00.A5.00.01",
    compute_capability="9.0",
    clocks_max_mhz={"graphics": 1980, "sm": 1980, "memory": 2619, "video": 1545},
    power_limit_default_milliwatts=700_000,
    power_limit_min_milliwatts=200_000,
    power_limit_max_milliwatts=700_000,
    pcie_generation_max=5,
    pcie_width_max=16,
    nvlink_count=18,
    has_activity=True,
    throttle_reasons_supported=0x1FF,
)
ACTIVITY = Activity(
    ratios={
        "graphics": 0.9,
        "sm": 0.8,
        "sm_occupancy": 0.5,
        "tensor": 0.4,
        "dram": 0.3,
        "fp64": 0.01,
        "fp32": 0.02,
        "fp16": 0.03,
        "integer": 0.04,
    },
    pcie_transmitted_bytes_per_s=1e9,
    pcie_received_bytes_per_s=2e9,
    nvlink_transmitted_bytes_per_s=1024e9,
    nvlink_received_bytes_per_s=2048e9,
)
# A whole GPU; every reading that there is.
FULL = Gpu(
    facts=FACTS,
    utilization_percent=55,
    memory_busy_percent=7,
    engine_percents={"encoder": 1, "decoder": 2, "jpeg": 3, "optical_flow": 4},
    encoder_sessions=2,
    encoder_fps=60,
    encoder_latency_us=1500,
    activity=ACTIVITY,
    memory=Memory(81920 * MIB, 2048 * MIB + 5, 79000 * MIB + 7, 872 * MIB),
    temperature_celsius=41,
    memory_temperature_celsius=54,
    power_milliwatts=300_500,
    power_limit_milliwatts=600_000,
    power_limit_set_milliwatts=650_000,
    energy_millijoules=123_456_789,
    clocks_mhz={"graphics": 1755, "sm": 1980, "memory": 2619, "video": 1545},
    throttle_reasons=0x44,
    throttled_ns={
        "power": 1,
        "thermal": 2,
        "sync_boost": 3,
        "board_limit": 4,
        "low_utilization": 5,
        "reliability": 6,
    },
    fan_percent=30,
    performance_state=2,
    is_persistent=True,
    compute_mode=3,
    fabric_state=3,
    recovery_action=1,
    ecc=Ecc(
        is_enabled=True,
        is_pending=False,
        volatile={"corrected": 2, "uncorrected": 1},
        aggregate={"corrected": 12, "uncorrected": 3},
    ),
    remapped_rows=RemappedRows(4, 5, is_pending=True, has_failed=False),
    row_remap_banks={"max": 2558, "high": 1, "partial": 1, "low": 0, "none": 0},
    retired_pages=RetiredPages(6, 7, is_pending=False),
    pcie=Pcie(replays=8, generation=4, width=8),
    nvlinks=NvLinks(is_up={0: True}, transmitted_bytes=10, received_bytes=20),
    mig=Mig(is_enabled=False, is_pending=True),
    processes=(DeviceProcess(100, 1000), DeviceProcess(101, None), DeviceProcess(102, 5)),
    is_xid_watched=True,
    xids=(Xid(79, 1, 1_700_000_000.0), Xid(31, 4, 1_700_000_500.0)),
)
_SPLIT_MEMORY = Memory(40960 * MIB, 512 * MIB, 40448 * MIB, 0)
# Split: two compute instances share the first GPU instance; the driver tells no utilisation.
SPLIT = Gpu(
    facts=Facts(
        uuid="GPU-22222222-BBBB",
        index=1,
        model="NVIDIA H100 80GB HBM3",
        bus_id="10000:C2:00.0",
    ),
    memory=Memory(81920 * MIB, 600 * MIB, 81000 * MIB, 320 * MIB),
    temperature_celsius=40,
    power_milliwatts=90_000,
    mig=Mig(
        is_enabled=True,
        is_pending=True,
        instances=(
            Instance("MIG-a", "1c.3g.40gb", 2, 0, _SPLIT_MEMORY, activity=ACTIVITY),
            Instance("MIG-b", "2c.3g.40gb", 2, 1, _SPLIT_MEMORY, activity=ACTIVITY),
            Instance("MIG-c", "1g.10gb", 9, 0, None),
        ),
    ),
    processes=(),
)
# Tells who it is, and nothing else.
BARE = Gpu(facts=Facts(uuid="GPU-33333333-cccc", index=2, model="NVIDIA A2"))


def make_reading(*gpus: Gpu, problems: tuple[str, ...] = ()) -> Reading:
    """Return a reading of these GPUs; process 102 may not be named."""
    return Reading(
        driver_version="550.54",
        gpus=gpus,
        owners={},
        process_names={100: "python3", 101: "./gpu_burn"},
        cuda_version="12.4",
        problems=problems,
    )
