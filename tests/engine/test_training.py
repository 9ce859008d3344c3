"""Losses, gradients and asked logits on the shortened sequence."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
from peft import LoraConfig, get_peft_model

import foveate
from foveate.method import registered
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.families.halves import Half, HalfAt
from tests.families.reference import every_second, everything
from tests.methods.made import halved

CASES = [
    (Half(), 0),
    (Half(positions="packed"), 0),
    (HalfAt(), 2),
]
NAMES = ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3"]


def labelled(name: str, i: int = 0):
    sample = zoo.sample(name, "image", i)
    batch = zoo.batch(name, [sample])
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -3:] = batch["input_ids"][:, -3:]
    return sample, batch, labels


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method,k", CASES, ids=repr)
def test_loss_is_that_of_the_columns_left(name, method, k):
    model = zoo.model(name)
    sample, batch, labels = labelled(name)
    kept = every_second(sample, per_item=k == 0)
    with foveate.attach(model, method), torch.no_grad():
        out = model(**batch, labels=labels)
        logits = model(**batch).logits
    assert logits.shape[1] == len(kept)
    target = labels[0, kept]
    expected = torch.nn.functional.cross_entropy(logits[0, :-1], target[1:], ignore_index=-100)
    assert torch.allclose(out.loss, expected, atol=1e-5)
    assert torch.allclose(out["loss"], out.to_tuple()[0])


@pytest.mark.parametrize("name", NAMES)
def test_keep_all_gives_the_bare_loss(name):
    model = zoo.model(name)
    _, batch, labels = labelled(name)
    with torch.no_grad():
        bare = model(**batch, labels=labels).loss
        with foveate.attach(model, Half(keep=1.0)):
            assert torch.allclose(model(**batch, labels=labels).loss, bare, atol=1e-6)
            plain = model(**batch, labels=labels, return_dict=False)
            assert torch.allclose(plain[0], bare, atol=1e-6)


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3"])
@pytest.mark.parametrize("method", [Half(), HalfAt(), HalfAt(positions="packed")], ids=repr)
def test_gradient_checkpointing_changes_no_gradient(name, method):
    model = zoo.model(name)
    _, batch, labels = labelled(name)

    def gradients():
        model.zero_grad()
        model(**batch, labels=labels, use_cache=False).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    model.train()
    try:
        with foveate.attach(model, method):
            plain = gradients()
            model.gradient_checkpointing_enable()
            checked = gradients()
    finally:
        model.gradient_checkpointing_disable()
        model.zero_grad()
        model.eval()
    assert plain.keys() == checked.keys() and len(plain) > 20
    for n, g in plain.items():
        assert torch.allclose(g, checked[n], atol=1e-5), n


def gradients(model, batch, labels):
    model.zero_grad()
    model(**batch, labels=labels, use_cache=False).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys() and first
    for n, g in first.items():
        assert g.isfinite().all() and torch.allclose(g, second[n], atol=1e-5), n
    assert any(g.any() for g in first.values())


@contextmanager
def training(model):
    model.train()
    try:
        yield model
    finally:
        model.gradient_checkpointing_disable()
        model.zero_grad()
        model.eval()


@pytest.mark.parametrize("reentrant", [False, True], ids=["default", "reentrant"])
@pytest.mark.parametrize("slug", registered())
def test_every_method_trains_with_checkpointed_layers(slug, reentrant):
    """transformers' default form counts the tensors that a layer saves when it runs again."""
    model = zoo.model("llava")
    batch = zoo.pair("llava", "image")
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == zoo.IMAGE, -100)
    with training(model), foveate.attach(model, halved(slug)):
        plain = gradients(model, batch, labels)
        how = {"use_reentrant": reentrant}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
        same(plain, gradients(model, batch, labels))


@pytest.mark.parametrize("slug", ["divprune", "visionzip", "fastv", "pyramiddrop", "yopo", "dymu"])
def test_adapters_train_with_checkpointed_layers(slug):
    model = copy.deepcopy(zoo.model("llava"))
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    model = get_peft_model(model, config)
    batch = zoo.pair("llava", "image")
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == zoo.IMAGE, -100)
    with training(model), foveate.attach(model, halved(slug)):
        plain = gradients(model, batch, labels)
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
        same(plain, gradients(model, batch, labels))


@pytest.mark.parametrize("slug", registered())
def test_every_method_runs_where_gradients_are_on(slug):
    """With and without labels, and what comes out is what comes out without gradients."""
    model = zoo.model("llava")
    batch = zoo.pair("llava", "image")
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == zoo.IMAGE, -100)
    with foveate.attach(model, halved(slug)):
        with torch.no_grad():
            expected = model(**batch).logits
        logits = model(**batch).logits
        loss = model(**batch, labels=labels).loss
    assert logits.requires_grad and torch.allclose(logits, expected, atol=1e-5)
    assert loss.requires_grad and loss.isfinite()


@pytest.mark.parametrize("method", [Half(), HalfAt(), Half(keep=1.0)], ids=repr)
def test_asked_logits_follow_their_tokens(method):
    model = zoo.model("llava")
    sample, batch, _ = labelled("llava")
    n = len(sample.ids)
    kept = everything(sample) if method.keep == 1.0 else every_second(sample)
    asked = torch.tensor([0, n - 2, -1])
    with foveate.attach(model, method), torch.no_grad():
        full = model(**batch).logits
        got = model(**batch, logits_to_keep=asked).logits
        column = [int((kept == i).nonzero()) for i in (0, n - 2, n - 1)]
        assert torch.allclose(got, full[:, column], atol=1e-5)
        assert torch.allclose(model(**batch, logits_to_keep=2).logits, full[:, -2:], atol=1e-5)


def test_asking_for_a_dropped_token_is_refused():
    model = zoo.model("llava")
    sample, batch, _ = labelled("llava")
    gone = sorted(set(range(len(sample.ids))) - set(every_second(sample).tolist()))[0]
    with foveate.attach(model, Half()), torch.no_grad():
        with pytest.raises(foveate.UnsupportedCall, match="dropped"):
            model(**batch, logits_to_keep=torch.tensor([gone]))
    mask = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    with foveate.attach(model, Half()), pytest.raises(foveate.UnsupportedCall, match="integer"):
        model(**batch, logits_to_keep=mask)


@pytest.mark.parametrize("method", [Half(), HalfAt()], ids=repr)
def test_peft_before_and_after(method):
    model = copy.deepcopy(zoo.model("llava"))
    alone, _ = pair("llava")
    with foveate.attach(model, method):
        expected = generate(model, alone[0])
    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=True)
    wrapped = get_peft_model(model, config)
    with foveate.attach(wrapped, method):
        assert close(expected, generate(wrapped, alone[0]))
    model = copy.deepcopy(zoo.model("llava"))
    with foveate.attach(model, method):
        wrapped = get_peft_model(model, config)
        assert close(expected, generate(wrapped, alone[0]))
