"""How other exporters write which GPU, and which part of it. Reads nothing."""

from __future__ import annotations

from ..gpu.reading import Facts, Gpu, Instance


def nvml_bus_id(facts: Facts) -> str:
    """Return the bus id as NVML writes it, the domain with eight digits; "" for none."""
    domain, colon, rest = facts.bus_id.partition(":")
    return f"{domain.rjust(8, '0')}:{rest}" if colon else ""


def gpu_instances(gpu: Gpu) -> list[Instance]:
    """Return one MIG device of each GPU instance: they share its memory and counters."""
    found: dict[int, Instance] = {}
    for instance in gpu.mig.instances if gpu.mig else ():
        found.setdefault(instance.gpu_instance, instance)
    return list(found.values())


def gpu_instance_profile(instance: Instance) -> str:
    """Return the GPU instance's profile: 1c.3g.40gb is a compute instance of 3g.40gb."""
    return instance.profile.rpartition("c.")[2]
