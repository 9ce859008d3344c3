"""Training on another device than the CPU, as far as that can be told without one."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foveate.errors import FoveateError
from foveate.mini import card, trainer
from foveate.mini.model_specs import SMOKE
from foveate.mini.trainer import Trainer

WHOLE = replace(SMOKE, shards=1)


def _masks(index) -> bool:
    return index is not None and index.is_meta and index.dtype == torch.bool


class Elsewhere(TorchDispatchMode):
    """Lets the device "meta" go where values are asked for, and notes whatever mixes devices.

    A mask chooses three elements there, and every number is 1.
    """

    def __init__(self):
        super().__init__()
        self.mixed = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        aten = torch.ops.aten
        flat = [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else [arg])]
        found = {x.device.type for x in flat if isinstance(x, torch.Tensor)}
        if len(found) > 1 and op not in (aten.copy_.default, aten._to_copy.default):
            self.mixed.add(str(op))
        if op is aten._local_scalar_dense.default and found == {"meta"}:
            return 1.0
        if op in (aten.index.Tensor, aten.index_put.default):
            three = torch.empty(3, dtype=torch.long, device="meta")
            where = [x for i in args[1] for x in ([three] * i.ndim if _masks(i) else [i])]
            args = (args[0], where, *args[2:])
        return op(*args, **(kwargs or {}))


@pytest.fixture
def elsewhere(monkeypatch):
    numbers = torch.Tensor.tolist

    def tolist(tensor):
        return [0.0] * tensor.numel() if tensor.device.type == "meta" else numbers(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    # It has no autocast either.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    return Elsewhere()


def test_all_tensors_of_a_step_are_on_the_device(elsewhere):
    run = Trainer(WHOLE, 0, device="meta")
    for step in (0, SMOKE.warm_up_steps):
        run.step = step
        with elsewhere:
            losses, _, grads = run._shard(0)
        assert losses.keys() == ({"alignment", "answers"} if step else {"alignment"})
        assert {grad.device.type for grad in grads if grad is not None} == {"meta"}
    assert not elsewhere.mixed
    run.alignment.word_ids = run.alignment.word_ids.new_zeros(145, device="cpu")
    with elsewhere:
        run._shard(0)
    assert elsewhere.mixed  # it does notice


def test_losses_in_bfloat16_are_near_those_in_float32():
    """The autocast of a CPU in the place of a GPU's; weights and gradients stay float32."""
    losses = []
    for on_gpu in (False, True):
        run = Trainer(WHOLE, 0)
        run.on_gpu = on_gpu
        run.step = SMOKE.warm_up_steps
        found, _, grads = run._shard(0)
        losses.append(found)
        assert {p.dtype for p in (*run.parameters, *grads)} == {torch.float32}
        run.close()
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_devices_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert trainer.device_of(None) == torch.device("cpu")
    with pytest.raises(FoveateError, match="no CUDA device"):
        trainer.train(tmp_path, device="cuda")
    with pytest.raises(FoveateError, match="device='tpu' is unknown"):
        trainer.train(tmp_path, device="tpu")


def test_the_card_says_which_device():
    facts = {"name": "x", "world": "w1", "parameters": 7, "seconds": 60, "seed": 0, "history": []}
    facts["recipe"] = {
        "warm_up_steps": 1,
        "warm_up_batch": 1,
        "joint_steps": 1,
        "joint_batch": 1,
        "questions": 1,
    }
    cpu = card.markdown({**facts, "threads": 2, "device": "cpu"})
    gpu = card.markdown({**facts, "threads": 16, "device": "Some GPU"})
    assert "1.0 minutes on 2 CPU threads" in cpu == card.markdown({**facts, "threads": 2})
    assert "1.0 minutes on one Some GPU, images drawn by 16 processes" in gpu
