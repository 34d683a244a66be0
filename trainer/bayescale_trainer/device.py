"""The machine under a run: its name, its datasheet peak, and the matmul rate it really reaches."""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
import time
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

# Dense peak FLOP/s of bf16 matrix products, from the makers' datasheets; fp32 has no tensor-core
# entry.
DATASHEET_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12}
CEILING_SECONDS = 0.1


class DeviceError(ValueError):
    """A device that this machine lacks."""


@dataclass(frozen=True)
class Device:
    """A device as one process sees it.

    Parameters
    ----------
    name : str
        What its maker calls it.
    kind : {"cpu", "cuda"}
    threads : int
        Threads that one process computes with.
    datasheet_flops : float or None
        Peak FLOP/s in the run's precision; None where the datasheet gives none.
    ceiling_flops : float
        FLOP/s of a large square matrix product, measured in this process.
    """

    name: str
    kind: str
    threads: int
    datasheet_flops: float | None
    ceiling_flops: float


def first_line(error: Exception) -> str:
    """Return what an error of the device says, without the page of advice that follows."""
    return str(error).strip().partition("\n")[0]


def device_kind(wanted: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises
    ------
    DeviceError
        If there is no such device.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA GPU that PyTorch can use: take auto or cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


@cache
def compiles_kernels() -> bool:
    """Return whether kernels can be compiled for a GPU here; where not, training goes on without, slower.

    It takes Triton, a C compiler, and Python's headers (python3-dev), which many images lack.
    """
    if not torch.cuda.is_available():
        return False
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # as Triton looks for them
    headers = Path(sysconfig.get_paths(scheme)["include"], "Python.h")
    found = {
        "Triton": find_spec("triton") is not None,
        "a C compiler": bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")),
        str(headers): headers.is_file(),
    }
    if missing := [what for what, there in found.items() if not there]:
        warnings.warn(
            f"no kernels can be compiled for the GPU, which takes {missing[0]}: half as fast", stacklevel=2
        )
    return not missing


@cache
def measure(kind: str, precision: str) -> Device:
    """Describe the device and measure its ceiling, once per process."""
    if kind == "cuda":
        name = torch.cuda.get_device_name()
        peaks = [peak for model, peak in DATASHEET_BF16.items() if model in name]
        datasheet = peaks[0] if peaks and precision == "bf16" else None
    else:
        name, datasheet = platform.processor() or platform.machine(), None
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    ceiling = _matmul_rate(kind, dtype, 8192 if kind == "cuda" else 512)
    return Device(name, kind, torch.get_num_threads(), datasheet, ceiling)


def _matmul_rate(kind: str, dtype: torch.dtype, size: int) -> float:
    a = torch.randn(size, size, device=kind, dtype=dtype)
    b = torch.empty_like(a)
    torch.mm(a, a, out=b)
    best = float("inf")
    until = time.perf_counter() + CEILING_SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(a, a, out=b)
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
