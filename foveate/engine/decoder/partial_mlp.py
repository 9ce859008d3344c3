"""Runs the MLP of a decoder layer with some of its hidden neurons."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import linear

from foveate.engine.offloaded_weights import loaded
from foveate.errors import UnsupportedCall


def mlp_by_neurons(mlp: nn.Module) -> tuple[int, int, Callable[[Tensor, int], Tensor]]:
    """Hidden neurons of an MLP, its number of matrices, and a function (x, neurons).

    The function runs the first `neurons` hidden neurons on any x (..., D).
    """
    down = getattr(mlp, "down_proj", None)
    fused = hasattr(mlp, "gate_up_proj")
    rising = (
        [mlp.gate_up_proj] if fused else [getattr(mlp, n, None) for n in ("gate_proj", "up_proj")]
    )
    activation = getattr(mlp, "act_fn", None) or getattr(mlp, "activation_fn", None)
    if down is None or activation is None or None in rising:
        raise UnsupportedCall(
            f"{type(mlp).__name__} is not a supported MLP (gate, up and down projection); use a "
            "method that does not change the MLP."
        )
    width = down.in_features

    def run(x: Tensor, neurons: int) -> Tensor:
        for module in (down, *rising):
            if type(module) is not nn.Linear:
                raise UnsupportedCall(
                    f"An MLP with {type(module).__name__} layers can't run with some of its "
                    "neurons only; merge adapters and load the model without quantisation."
                )
        with loaded((down, *rising)):
            gate, up = (_rows(m, s, neurons) for m, s in _starts(rising, width))
            inside = activation(linear(x, *gate)) * linear(x, *up)
            return linear(inside, down.weight[:, :neurons], down.bias)

    return width, 3, run


def _starts(rising: list[nn.Module], width: int):
    """The gate and up projections, each with its first row in its matrix."""
    if len(rising) == 1:
        return ((rising[0], 0), (rising[0], width))
    return ((rising[0], 0), (rising[1], 0))


def _rows(module: nn.Module, start: int, count: int) -> tuple[Tensor, Tensor | None]:
    rows = slice(start, start + count)
    return module.weight[rows], None if module.bias is None else module.bias[rows]
