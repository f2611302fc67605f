"""What the demo lab consists of. Only data; nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Model:
    """A kind of accelerator."""

    vendor: str
    name: str
    memory_bytes: int
    idle_watts: float
    full_watts: float


ASCEND_910B = Model("ascend", "910B3", 64 * GIB, 92.0, 385.0)
ASCEND_910A = Model("ascend", "910A", 32 * GIB, 68.0, 290.0)
H100 = Model("nvidia", "NVIDIA H100 80GB HBM3", 80 * GIB, 72.0, 690.0)
A100 = Model("nvidia", "NVIDIA A100-SXM4-40GB", 40 * GIB, 54.0, 400.0)
RTX_4090 = Model("nvidia", "NVIDIA GeForce RTX 4090", 24 * GIB, 18.0, 440.0)


@dataclass(frozen=True)
class DemoNode:
    """A server of the lab. A node whose `is_up` is False has an agent that went silent."""

    name: str
    cluster: str
    tags: tuple[str, ...]
    model: Model | None
    device_count: int
    is_up: bool = True


NODES = (
    DemoNode("ascend-01", "npu", ("910b", "hccs"), ASCEND_910B, 8),
    DemoNode("ascend-02", "npu", ("910b", "hccs"), ASCEND_910B, 8),
    DemoNode("ascend-03", "npu", ("910b", "hccs"), ASCEND_910B, 8),
    DemoNode("ascend-04", "npu", ("910a",), ASCEND_910A, 8),
    DemoNode("ascend-05", "npu", ("910a",), ASCEND_910A, 8, is_up=False),
    DemoNode("hopper-01", "gpu", ("h100", "nvlink"), H100, 8),
    DemoNode("hopper-02", "gpu", ("h100", "nvlink"), H100, 8),
    DemoNode("ampere-01", "gpu", ("a100", "nvlink"), A100, 8),
    DemoNode("ampere-02", "gpu", ("a100", "nvlink"), A100, 4),
    DemoNode("desk-01", "gpu", ("4090", "teaching"), RTX_4090, 2),
    DemoNode("desk-02", "gpu", ("4090", "teaching"), RTX_4090, 2),
    DemoNode("cpu-01", "cpu", ("data",), None, 0),
)


@dataclass(frozen=True)
class Person:
    """Somebody of the lab. `eagerness` 0–1: how much of a booking is really used."""

    name: str
    display_name: str
    role: str
    eagerness: float


PEOPLE = (
    Person("alice", "Alice Martin", "user", 0.95),
    Person("bob", "Bob Nilsson", "user", 0.8),
    Person("chen", "陈思远", "user", 0.9),
    Person("diana", "Diana Okafor", "user", 0.6),
    Person("li", "李婷", "user", 0.85),
    # Books much and computes little: what 'booked against used' is there to show.
    Person("marco", "Marco Rossi", "user", 0.04),
    Person("wang", "王磊", "operator", 0.7),
    Person("zoe", "Zoe Lambert", "readonly", 0.0),
)

PURPOSES = (
    "fine-tuning 7B, second seed",
    "预训练消融实验",
    "diffusion, 512 px",
    "inference benchmark",
    "评测 MMLU",
    "data loader profiling",
    "thesis, chapter 4",
    "ResNet baseline",
)
