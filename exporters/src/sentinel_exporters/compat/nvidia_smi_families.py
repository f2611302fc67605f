"""The families of nvidia_gpu_exporter: names, labels and what they say. Holds no value.

After its docs/METRICS.md: a family for a field of `nvidia-smi --query-gpu`, in base units, and
what its NVML backend adds. What counts up is a gauge too: OpenMetrics would give a counter
another name than the dashboards ask for.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core import Metric
from ..gpu.reading import THROTTLE_REASONS

# It has no field for the other one.
EVENT_REASONS = [name for name in THROTTLE_REASONS if name != "display_clock_setting"]
# A count of error_counts() under their name.
ERRORS = {
    "ecc_errors_corrected_volatile_total": "volatile corrected",
    "ecc_errors_uncorrected_volatile_total": "volatile uncorrected",
    "ecc_errors_corrected_aggregate_total": "aggregate corrected",
    "ecc_errors_uncorrected_aggregate_total": "aggregate uncorrected",
    "retired_pages_single_bit_ecc_count": "single-bit pages",
    "retired_pages_double_bit_count": "double-bit pages",
    "retired_pages_pending": "pages pending",
    "remapped_rows_correctable": "corrected rows",
    "remapped_rows_uncorrectable": "uncorrected rows",
    "remapped_rows_pending": "rows pending",
    "remapped_rows_failure": "rows failed",
}
# Our name of an engine under theirs.
ENGINES = {
    "encoder": "encoder",
    "decoder": "decoder",
    "jpeg": "jpeg",
    "ofa": "optical_flow",
}
MIG_RATIOS = {
    "graphics_activity": "graphics",
    "sm_activity": "sm",
    "sm_occupancy": "sm_occupancy",
    "tensor_activity": "tensor",
}
_OF_GPU: Mapping[str, str] = {
    "index": "NVML's index.",
    "count": "GPUs of this machine.",
    "pstate": "P-state: 0 is the fastest, 15 the slowest.",
    "persistence_mode": "1 when the driver keeps the GPU started, else 0.",
    "compute_mode": "0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process.",
    "fabric_state": "NVLink fabric: 0 none, 1 not started, 2 in progress, 3 completed.",
    "gpu_recovery_action": "0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.",
    "temperature_gpu": "Temperature of the chip in degrees Celsius.",
    "temperature_memory": "Temperature of the memory in degrees Celsius.",
    "fan_speed_ratio": "Fan speed as a share of its maximum.",
    "power_draw_watts": "Power that is drawn.",
    "enforced_power_limit_watts": "Power limit that is enforced.",
    "power_limit_watts": "Power limit that was set.",
    "power_default_limit_watts": "Power limit after a start of the driver.",
    "power_min_limit_watts": "Lowest power limit that can be set.",
    "power_max_limit_watts": "Highest power limit that can be set.",
    "energy_joules_total": "Energy since the driver was loaded.",
    "utilization_gpu_ratio": "Share of time in which it computed.",
    "utilization_memory_ratio": "Share of time in which the memory was read or written.",
    **{f"utilization_{name}_ratio": f"Share of time: {name}." for name in ENGINES},
    "memory_total_bytes": "Memory installed.",
    "memory_used_bytes": "Memory in use.",
    "memory_free_bytes": "Memory that is free.",
    "memory_reserved_bytes": "Memory that the driver keeps for itself.",
    "clocks_current_graphics_clock_hz": "Graphics clock.",
    "clocks_current_sm_clock_hz": "SM clock.",
    "clocks_current_memory_clock_hz": "Memory clock.",
    "clocks_current_video_clock_hz": "Video clock.",
    "clocks_max_graphics_clock_hz": "Highest graphics clock.",
    "clocks_max_sm_clock_hz": "Highest SM clock.",
    "clocks_max_memory_clock_hz": "Highest memory clock.",
    "clocks_event_reasons_active": "Why the clocks are where they are: NVML's bits.",
    "clocks_event_reasons_supported": "Reasons that the GPU can tell: NVML's bits.",
    **{
        f"clocks_event_reasons_{name}": f"1 while the clocks are held by {name}, else 0."
        for name in EVENT_REASONS
    },
    "encoder_stats_session_count": "Video encoder sessions.",
    "encoder_stats_average_fps": "Mean frames a second of the encoder sessions.",
    "encoder_stats_average_latency": "Mean latency of the encoder sessions in microseconds.",
    "ecc_mode_current": "1 with error correction, else 0.",
    "ecc_mode_pending": "As ecc_mode_current, after the next restart.",
    **{
        f"ecc_errors_{kind}_{counter}_total": f"Memory errors, {kind}, {counter}."
        for kind in ("corrected", "uncorrected")
        for counter in ("volatile", "aggregate")
    },
    "retired_pages_single_bit_ecc_count": "Memory pages out of use for corrected errors.",
    "retired_pages_double_bit_count": "Memory pages out of use for an uncorrected error.",
    "retired_pages_pending": "1 when pages wait for a restart to be taken out of use.",
    "remapped_rows_correctable": "Memory rows replaced for corrected errors.",
    "remapped_rows_uncorrectable": "Memory rows replaced for uncorrected errors.",
    "remapped_rows_pending": "1 when rows wait for a reset to be replaced.",
    "remapped_rows_failure": "1 when a row could not be replaced.",
    **{
        f"remapped_rows_histogram_{name}": f"Memory banks with spare rows left: {name}."
        for name in ("max", "high", "partial", "low", "none")
    },
    "pcie_link_gen_current": "PCIe generation of the link.",
    "pcie_link_gen_max": "Highest PCIe generation of GPU and slot.",
    "pcie_link_width_current": "PCIe lanes in use.",
    "pcie_link_width_max": "Most PCIe lanes of GPU and slot.",
    "pcie_throughput_tx_bytes_per_second": "PCIe traffic from the GPU.",
    "pcie_throughput_rx_bytes_per_second": "PCIe traffic to the GPU.",
    "mig_mode_current": "1 when the GPU can be split into instances, else 0.",
    "mig_mode_pending": "As mig_mode_current, after the next reset.",
    "compute_apps": "Processes that use the GPU.",
}
_OF_INSTANCE: Mapping[str, str] = {
    "mig_memory_total_bytes": "Memory of the GPU instance.",
    "mig_memory_used_bytes": "Memory of the GPU instance in use.",
    "mig_memory_free_bytes": "Memory of the GPU instance that is free.",
    "mig_memory_reserved_bytes": "Memory of the GPU instance kept by the driver.",
    **{f"mig_{name}_ratio": f"Share of the GPU instance: {name}." for name in MIG_RATIOS},
    "mig_pcie_throughput_tx_bytes_per_second": "PCIe traffic from the GPU instance.",
    "mig_pcie_throughput_rx_bytes_per_second": "PCIe traffic to the GPU instance.",
}
_APP_LABELS = ("pid", "process_name", "uuid")
_OTHERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "gpu_info": (
        "Always 1; what the GPU is.",
        (
            "uuid", "name", "driver_model_current", "driver_model_pending", "vbios_version",
            "driver_version", "pci_bus_id", "serial", "compute_cap", "pci_sub_device_id",
            "index", "cuda_version",
        ),
    ),
    "last_collect_success": ("1 when all that should be could be read, else 0.", ()),
    "compute_apps_last_collect_success": ("1 when each GPU's processes are known.", ()),
    "compute_app_info": ("Always 1; a process on the GPU.", _APP_LABELS),
    "compute_app_used_memory_bytes": ("Memory that the process holds.", _APP_LABELS),
    "xid_errors_total": ("XID errors since the exporter started.", ("uuid", "xid")),
    "xid_last_timestamp_seconds": ("When the last one was seen.", ("uuid", "xid")),
    "mig_info": (
        "Always 1; what the MIG device is.",
        ("uuid", "mig_uuid", "gpu_instance_id", "compute_instance_id", "profile"),
    ),
}  # fmt: skip
# By the name without nvidia_smi_.
FAMILIES: Mapping[str, Metric] = {
    name: Metric(f"nvidia_smi_{name}", "gauge", help_text, labels)
    for name, (help_text, labels) in {
        **{name: (text, ("uuid",)) for name, text in _OF_GPU.items()},
        **{name: (text, ("uuid", "gpu_instance_id")) for name, text in _OF_INSTANCE.items()},
        **_OTHERS,
    }.items()
}
