import subprocess
import sys
from types import SimpleNamespace

import pytest

from fmseg.planning import hardware


def test_a_machine_without_a_driver_is_planned_without_torch():
    code = (
        "import sys; from fmseg.planning import hardware; from fmseg.planning.planner import plan; "
        "hardware.detect_cpu(); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_processor_is_described_by_what_this_process_may_use():
    found = hardware.detect_cpu()
    assert found.device == "cpu"
    assert found.num_cores == hardware.num_cores() >= 1
    assert found.memory_gb > 0
    assert found.gflops > 0


def test_more_cores_and_half_precision_are_faster():
    speeds = [hardware.cpu_gflops(cores, True, True) for cores in (1, 2, 4, 8, 16, 64)]
    assert speeds == sorted(set(speeds))
    assert hardware.cpu_gflops(2, True, True) == 320
    assert hardware.cpu_gflops(2, False, True) == 130
    assert hardware.cpu_gflops(2, False, False) < 130


def test_features_of_the_processor_are_read(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx512f avx512_bf16\n\nprocessor : 1\n")
    assert hardware.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx512f", "avx512_bf16"}
    assert hardware.cpu_flags(tmp_path / "none") == set()


def test_a_container_has_its_own_share_of_the_memory(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    whole = hardware.memory_bytes(tmp_path)
    (tmp_path / "memory.max").write_text(f"{whole // 2}\n")
    assert hardware.memory_bytes(tmp_path) == whole // 2


@pytest.mark.parametrize(
    ("name", "gflops"),
    [
        ("NVIDIA H100 80GB HBM3", 250_000),
        ("NVIDIA A100-SXM4-80GB", 120_000),
        ("NVIDIA A10G", 50_000),
        ("NVIDIA GeForce RTX 4090", 110_000),
        ("Tesla V100-SXM2-16GB", 50_000),
        ("Some Card 2040", 24 * hardware.CARD_GFLOPS_PER_GB),
    ],
)
def test_cards_are_known_by_name_and_others_by_memory(name, gflops):
    assert hardware.card_gflops(name, 24.0) == gflops


def test_the_smallest_card_speaks_for_all(monkeypatch):
    cards = [
        SimpleNamespace(name="NVIDIA H100", total_memory=80e9, major=9),
        SimpleNamespace(name="NVIDIA A100", total_memory=40e9, major=8),
    ]
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_properties=lambda index: cards[index]
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(hardware.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    found = hardware.detect_hardware()
    assert (found.device, found.num_devices, found.memory_gb) == ("cuda", 2, 40)
    assert found.gflops == 120_000
    assert found.has_bfloat16
