"""What a run tells: means of the logged values, speed, and when to give up on values that are not finite.

Values stay tensors on the device until their interval ends, so that no step waits for a number.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fmseg.errors import FmsegError
from fmseg.learning.runtime import Runtime
from fmseg.records.run import RunFolder

#: intervals in a row with steps left out, after which training is given up
MAX_BAD_INTERVALS = 3
#: share of an interval's steps that may be left out: float16 probes its loss scale now and then
MAX_SKIPPED_SHARE = 0.01


class Journal:
    """Collects the values of steps, and writes their means to metrics.jsonl and times to timing.jsonl."""

    def __init__(self, run: RunFolder, runtime: Runtime, *, batch_size: int) -> None:
        self.run, self.runtime, self.batch_size = run, runtime, batch_size
        self.status = ""
        self._values: dict[str, list[Tensor]] = {}
        self._bad_intervals = 0
        #: steps of this interval that an earlier process made, in a time that is not known here
        self._earlier_steps = 0
        self._restart_clock()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Keep 0-d tensors until ``flush``; ``grad_norm`` must come once a step."""
        device = self.runtime.device
        for name, value in values.items():
            self._values.setdefault(name, []).append(value.detach().to(device, torch.float32, non_blocking=True))

    def flush(self, step: int, schedule: Mapping[str, float]) -> None:
        """Write one line with the means since the last one; ``schedule`` is added as it is.

        step: the number of steps done. All ranks must call this; means are over all of them.
        Raises FmsegError after the third interval in a row in which steps were left out.
        """
        columns = self._fetch()
        norms = columns["grad_norm"]
        skipped = [step - len(norms) + i for i, norm in enumerate(norms) if not math.isfinite(norm)]
        means = {name: _mean(column) for name, column in columns.items()}
        if skipped:
            means["skipped"] = len(skipped)
        is_bad = len(skipped) > MAX_SKIPPED_SHARE * len(norms)
        self._bad_intervals = self._bad_intervals + 1 if is_bad else 0
        self.log(step, means | dict(schedule))
        self._log_speed(step, len(norms) - self._earlier_steps, means)
        self._values.clear()
        self._earlier_steps = 0
        self._restart_clock()
        if self._bad_intervals == MAX_BAD_INTERVALS:
            raise FmsegError(
                f"{self.run.path}: the gradients of {len(skipped)} of the last {len(norms)} steps were not finite "
                f"(step {skipped[0]} for one), in {MAX_BAD_INTERVALS} intervals in a row. "
                "Lower the learning rate, train in float32, or check the training images with: fmseg doctor"
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write finite values to metrics.jsonl, rounded to six digits; no line if there are none."""
        finite = {name: float(f"{v:.6g}") for name, v in values.items() if math.isfinite(v)}
        if finite and self.runtime.is_main:
            self.run.log(step, finite)

    def waited(self, seconds: float) -> None:
        """Count time in which no data was there."""
        self._waited += seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block (validation, a checkpoint) out of the speed."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def state(self) -> dict[str, Any]:
        """Return what is not written yet, for a checkpoint; values that are not finite become None.

        All ranks must call this.
        """
        columns = {
            name: [value if math.isfinite(value) else None for value in column]
            for name, column in self._fetch().items()
        }
        return {"values": columns, "bad_intervals": self._bad_intervals}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self._bad_intervals = state["bad_intervals"]
        self._values = {
            name: [torch.tensor(math.nan if v is None else v, device=self.runtime.device) for v in column]
            for name, column in state["values"].items()
        }
        self._earlier_steps = len(self._values.get("grad_norm", ()))

    def _fetch(self) -> dict[str, list[float]]:
        """Return the collected values, each the mean over the ranks where it is finite, NaN if nowhere.

        The one place where the host waits for the device; all ranks must call it.
        """
        if not self._values:
            return {}
        columns = [torch.stack(column) for column in self._values.values()]
        flat = torch.cat(columns).cpu().double()
        is_finite = torch.isfinite(flat)
        sums, counts = self.runtime.total(torch.stack([torch.where(is_finite, flat, 0.0), is_finite.double()]))
        means = (sums / counts).split([len(column) for column in columns])
        return {name: column.tolist() for name, column in zip(self._values, means, strict=True)}

    def _log_speed(self, step: int, num_steps: int, means: dict[str, float]) -> None:
        seconds = time.perf_counter() - self._start
        speed = self.batch_size * num_steps / seconds
        times = {"seconds": seconds, "images_per_s": speed, "data_wait_share": self._waited / seconds}
        if self.runtime.is_main:
            self.run.log_timing(step, {name: float(f"{value:.4g}") for name, value in times.items()})
        self.status = f"loss {means['loss']:.4g}, {speed:.3g} images/s"

    def _restart_clock(self) -> None:
        self._start, self._waited = time.perf_counter(), 0.0


def _mean(values: list[float]) -> float:
    """Return the mean of the finite values, NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
