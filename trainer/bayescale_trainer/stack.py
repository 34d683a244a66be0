"""A stack: runs of one shape trained together, one row each, on CPU or GPU.

On CPU a stack holds one run and each step is eager. On a CUDA device small runs are bound by kernel
launches, so many rows share each launch and the whole step (forward, backward, update) is captured
once as a CUDA graph and replayed; a long task fuses its small operations first (`fuse`). Weights
are fp32; under bf16 the step works on a rounded copy of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .device import first_line
from .model import cross_entropy, logits, rotation, start_weights, views
from .optimiser import AdamW
from .run import Run
from .shape import Shape

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GRAPH_WARMUP_STEPS = 3
# The weights of a stack are strided views on purpose: they and their gradients lie in flat vectors.
warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout contract")
warnings.filterwarnings("ignore", "TensorFloat32 tensor cores for float32")  # fp32 means fp32


def _losses(shape: Shape, weights: Mapping[str, Tensor], windows: Tensor, turn: Any) -> Tensor:
    predicted = logits(shape, weights, windows[..., :-1], turn)
    return cross_entropy(predicted, windows[..., 1:]).mean(dim=(1, 2))


@cache
def _side_stream() -> Any:
    """Return the stream that steps are warmed up on: one, as each would keep a workspace of its own."""
    return torch.cuda.Stream()


class Stack:
    """The state of runs in training, and the step that changes it.

    Parameters
    ----------
    runs : sequence of Run
        Of one stack key; row i is runs[i].
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, runs: Sequence[Run], device: str = "cpu") -> None:
        self.shape, self.device, self._runs = runs[0].shape, torch.device(device), len(runs)
        self.dtype = DTYPES[runs[0].precision]
        master = start_weights(self.shape, [run.seed for run in runs]).to(self.device)
        self.optimiser = AdamW(runs, master)
        # In fp32 the working weights are the masters themselves: nothing to copy.
        self._work = master if self.dtype == torch.float32 else master.to(self.dtype)
        self._grad = torch.zeros_like(self._work)
        self.weights = {
            name: view.detach().requires_grad_() for name, view in views(self.shape, self._work).items()
        }
        for name, view in views(self.shape, self._grad).items():
            self.weights[name].grad = view  # backward then adds into the flat gradient
        self._turn = rotation(self.shape, self.device, self.dtype)
        self.losses = torch.zeros(len(runs), device=self.device)
        # Functions of the stack, not bound to it: in a cycle its memory would outlive it.
        self._losses_of: Callable[..., Tensor] = _losses
        self._update_by: Callable[[Stack], None] = Stack._update
        # CUDA graphs of a step, by whether it is taken in halves, and what they read and write.
        self._graphs: dict[bool, Any] = {}
        self._pool: Any = None
        self._input: Tensor | None = None
        self._norms = torch.zeros(len(runs), 2, device=self.device)

    def step(self, windows: Tensor, step: int, share: float, *, halves: bool = False) -> Tensor | None:
        """Train one step.

        Parameters
        ----------
        windows : Tensor
            Token windows, (runs, batch, context + 1) int64.
        step : int
            Steps taken before.
        share : float
            Share of the peak learning rate.
        halves : bool
            Take the gradient in two halves of the batch and return their squared norms, for the
            gradient-noise scale; the update is the same up to rounding.

        Returns
        -------
        Tensor or None
            (runs, 2): mean squared norm of the halves' gradients, squared norm of the whole.
        """
        self.optimiser.set_step(step, share)
        if self.device.type == "cuda":
            self._replay(windows, halves)
        else:
            self._eager(windows, halves)
        return self._norms.to("cpu", copy=True) if halves else None

    def fuse(self) -> None:
        """Compile the step of a CUDA stack into fewer kernels: once some 20 s, then half the time a step."""
        torch._dynamo.config.recompile_limit = 1024  # of shapes that one process may train
        self._losses_of = torch.compile(_losses, dynamic=False)
        self._update_by = torch.compile(Stack._update, dynamic=False)
        self._forget_graphs()

    def predict(self, windows: Tensor) -> Tensor:
        """Return the logits for the windows' targets, (runs, batch, context, vocabulary)."""
        with torch.no_grad():
            return logits(self.shape, self.weights, windows[..., :-1], self._turn)

    def state(self) -> dict[str, Tensor]:
        """Return all that later steps and the record depend on, on the CPU."""
        return {name: tensor.cpu().clone() for name, tensor in self._kept().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a state that `state` returned."""
        for name, tensor in self._kept().items():
            tensor.copy_(state[name])
        self._round()

    def _kept(self) -> dict[str, Tensor]:
        kept = self.optimiser
        # Loss and norm of the last step are kept for a task that resumes at its end.
        return {
            "master": kept.master,
            "mean": kept.mean,
            "square": kept.square,
            "norm": kept.norm,
            "losses": self.losses,
        }

    def _eager(self, windows: Tensor, halves: bool = False) -> None:
        if halves:
            self._step_in_halves(windows)
        else:
            self._backward(windows)
            self._update_by(self)

    def _backward(self, windows: Tensor) -> None:
        if self._losses_of is not _losses:
            torch._dynamo.mark_dynamic(windows, 1)  # one compilation for halves and all sizes of batch
        losses = self._losses_of(self.shape, self.weights, windows, self._turn)
        losses.sum().backward()  # rows do not mix, so each run gets its own gradient
        self.losses.copy_(losses.detach())

    def _update(self) -> None:
        self.optimiser.update(self._grad if self.dtype == torch.float32 else self._grad.float())
        self._grad.zero_()
        self._round()

    def _round(self) -> None:
        if self._work is not self.optimiser.master:
            self._work.copy_(self.optimiser.master)

    def _step_in_halves(self, windows: Tensor) -> None:
        half_norm, losses = torch.zeros_like(self.losses), torch.zeros_like(self.losses)
        whole = torch.zeros_like(self._grad)
        for half in windows.chunk(2, dim=1):
            share = half.shape[1] / windows.shape[1]
            self._backward(half.contiguous())
            half_norm.add_(self._grad.float().square().sum(dim=1), alpha=share)
            whole.add_(self._grad, alpha=share)
            losses.add_(self.losses, alpha=share)
            self._grad.zero_()
        self._grad.copy_(whole)
        self._norms.copy_(torch.stack((half_norm, whole.float().square().sum(dim=1)), dim=1))
        self.losses.copy_(losses)
        self._update_by(self)

    def _replay(self, windows: Tensor, halves: bool) -> None:
        if self._input is None:
            self._input = torch.empty_like(windows, device=self.device)
        # From pinned memory, so that the host goes on while the device is still at the step before.
        self._input.copy_(windows.contiguous().pin_memory(), non_blocking=True)
        if halves not in self._graphs:
            self._graphs[halves] = self._recorded(self._input, halves)
        self._graphs[halves].replay()

    def _recorded(self, windows: Tensor, halves: bool) -> Any:
        """Record one step; where its fused form does not compile, as it is."""
        try:
            return self._capture(windows, halves)
        except RuntimeError as error:
            if self._losses_of is _losses:
                raise
            warnings.warn(
                f"the step stays as it is, for its fused form failed ({first_line(error)})", stacklevel=2
            )
            self._losses_of, self._update_by = _losses, Stack._update
            self._forget_graphs()
            return self._capture(windows, halves)

    def _forget_graphs(self) -> None:
        # All at once: one that ends may take workspaces with it that another would go on using.
        self._graphs.clear()
        self._pool = None

    def _capture(self, windows: Tensor, halves: bool) -> Any:
        """Record one step as a CUDA graph; the warm-up steps that capture needs are undone."""
        before = {name: tensor.clone() for name, tensor in self._kept().items()}
        try:
            side = _side_stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(GRAPH_WARMUP_STEPS):
                    self._eager(windows, halves)
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.empty_cache()  # of the warm-up, as graphs keep memory of their own
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):  # never replayed at once, so they share it
                self._eager(windows, halves)
        finally:
            self.load(before)
            self._grad.zero_()
        return graph
