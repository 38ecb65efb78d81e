"""What this machine can do: devices, memory, cores, and a rule of thumb for its training speed.

Without an accelerator nothing here imports torch, so that planning starts at once.
"""

import os
import re
import shutil
from pathlib import Path

from fmseg.records.plans import Hardware

#: sustained GFLOP/s of one core in training steps: bfloat16, float32. Two cores of an AVX-512 server reach 320 and
#: 130 with a ViT-S/16; without bfloat16 units only the second counts
CORE_GFLOPS_AVX512 = (160.0, 65.0)
CORE_GFLOPS_OTHER = 40.0
#: cores share memory and caches
CORE_SCALING = 0.95
#: sustained bfloat16 GFLOP/s of wide ViTs, by a part of the card's name
CARD_GFLOPS = {
    "B200": 500_000.0,
    "H200": 260_000.0,
    "H100": 250_000.0,
    "GH200": 250_000.0,
    "A100": 120_000.0,
    "L40": 120_000.0,
    "4090": 110_000.0,
    "A6000": 70_000.0,
    "A40": 65_000.0,
    "3090": 60_000.0,
    "A10": 50_000.0,
    "V100": 50_000.0,
    "T4": 25_000.0,
}
#: for a card of another name: GFLOP/s per GB of its memory, since both grow with its class
CARD_GFLOPS_PER_GB = 1500.0

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def detect_hardware() -> Hardware:
    """Return this machine: its CUDA devices if it has any, else its CPU."""
    return detect_cuda() or detect_cpu()


def detect_cuda() -> Hardware | None:
    """Return the CUDA devices of this machine, None without any; torch is imported only where a driver is."""
    if not (Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi")):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    # the smallest card bounds the memory of all, and the slowest their speed
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    memory_gb = float(round(min(card.total_memory for card in cards) / 1e9))
    return Hardware(
        device="cuda",
        num_devices=len(cards),
        memory_gb=memory_gb,
        num_cores=num_cores(),
        has_bfloat16=min(card.major for card in cards) >= 8,
        gflops=min(card_gflops(card.name, memory_gb) for card in cards),
    )


def detect_cpu() -> Hardware:
    """Return the processor's cores that this process may use, and its memory."""
    flags = cpu_flags()
    has_bfloat16 = bool(flags & BFLOAT16_FLAGS)
    return Hardware(
        device="cpu",
        num_devices=1,
        memory_gb=float(round(memory_bytes() / 1e9)),
        num_cores=num_cores(),
        has_bfloat16=has_bfloat16,
        gflops=cpu_gflops(num_cores(), has_bfloat16, "avx512f" in flags),
    )


def card_gflops(name: str, memory_gb: float) -> float:
    """Return the rule of thumb for a card, by its name or else by its memory."""
    words = re.findall(r"[A-Z0-9]+", name.upper())
    for part, gflops in CARD_GFLOPS.items():
        if any(word == part or (word.startswith(part) and not word[len(part)].isdigit()) for word in words):
            return gflops
    return memory_gb * CARD_GFLOPS_PER_GB


def cpu_gflops(cores: int, has_bfloat16: bool, has_avx512: bool) -> float:
    """Return the rule of thumb for a processor, in the precision that training takes on it."""
    with_bfloat16, with_float32 = CORE_GFLOPS_AVX512
    per_core = with_bfloat16 if has_bfloat16 else with_float32 if has_avx512 else CORE_GFLOPS_OTHER
    return float(round(per_core * cores * CORE_SCALING ** (cores.bit_length() - 2)))


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the processor's features, none where the system does not tell."""
    if not path.exists():
        return set()
    match = re.search(r"^flags\s*:(.*)$", path.read_text(errors="replace"), re.MULTILINE)
    return set(match[1].split()) if match else set()


def memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the machine's memory, or the container's share of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = cgroup / name
        text = path.read_text().strip() if path.exists() else ""
        if text.isdecimal():
            total = min(total, int(text))
    return total
