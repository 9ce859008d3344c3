"""Losses and scores that trainers compute outside the model's own forward."""

from __future__ import annotations

import types

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers.trainer_pt_utils import LabelSmoother

import foveate
from tests.families import zoo
from tests.families.halves import Half, HalfAt
from tests.families.reference import every_second

METHODS = [Half(), HalfAt(), Half() + foveate.FastV(keep=0.5)]
every = pytest.mark.parametrize("method", METHODS, ids=repr)


def labelled(name: str = "llava"):
    batch = zoo.pair(name, "image")
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == zoo.IMAGE, -100)
    return batch, labels.masked_fill(batch["attention_mask"] == 0, -100)


def shifted(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)


def outside(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@every
def test_labels_and_logits_are_mapped_for_losses_outside(method):
    model = zoo.model("llava")
    batch, labels = labelled()
    # A row's first token is predicted by padding, which dropping may have made.
    labels[(labels != -100).long().cumsum(1) == 1] = -100
    with foveate.attach(model, method) as att, torch.no_grad():
        inside = model(**batch, labels=labels).loss
        logits = model(**batch).logits
        assert logits.shape[1] < labels.shape[1]
        aligned, full = att.align_labels(labels), att.expand_logits(logits)
        assert aligned.shape == logits.shape[:2] and full.shape[:2] == labels.shape
        assert torch.allclose(outside(logits, aligned), inside, atol=1e-6)
        assert torch.allclose(outside(full, labels), inside, atol=1e-6)
        with pytest.raises(foveate.UnsupportedCall, match="rows of"):
            att.align_labels(labels[:, 1:])
        with pytest.raises(foveate.UnsupportedCall, match="last forward call"):
            att.expand_logits(logits[:, 1:])
    with foveate.attach(model, method, full_logits=True), torch.no_grad():
        assert torch.equal(model(**batch).logits, full)
        told = model(**batch, labels=labels)
        assert torch.equal(told.logits, full) and torch.equal(told.loss, inside)
        assert torch.equal(model(**batch, labels=labels, return_dict=False)[1], full)
        assert torch.equal(model(**batch, logits_to_keep=2).logits, full[:, -2:])


def test_expanded_logits_are_those_of_the_last_kept_token_in_front():
    model = zoo.model("llava")
    sample = zoo.sample("llava", "image", 0)
    kept = every_second(sample).tolist()
    with foveate.attach(model, Half()) as att, torch.no_grad():
        logits = model(**zoo.batch("llava", [sample])).logits
        full = att.expand_logits(logits)
    for column in range(len(sample.ids)):
        before = max(i for i, c in enumerate(kept) if c <= column)
        assert torch.equal(full[0, column], logits[0, before])


def test_what_nothing_was_dropped_of_is_left_as_it_is():
    model = zoo.model("llava")
    batch, labels = labelled()
    with foveate.attach(model, Half(keep=1.0)) as att, torch.no_grad():
        logits = model(**batch).logits
        assert att.align_labels(labels) is labels and att.expand_logits(logits) is logits


@every
def test_label_smoothing_needs_full_logits(method):
    """transformers' Trainer takes the labels away and smooths outside."""
    model, smoother = zoo.model("llava").train(), LabelSmoother(epsilon=0.1)
    batch, labels = labelled()
    labels[(labels != -100).long().cumsum(1) == 1] = -100
    try:
        with foveate.attach(model, method):
            with pytest.raises(foveate.UnsupportedCall, match="full_logits=True"):
                model(**batch)
            model(**batch, logits_to_keep=1)
            model(**batch, labels=labels)
        with foveate.attach(model, method, full_logits=False) as att:
            output = model(**batch)
            expected = smoother(output, att.align_labels(labels), shift_labels=True)
        with foveate.attach(model, method, full_logits=True):
            loss = smoother(model(**batch), labels, shift_labels=True)
            loss.backward()
        assert torch.allclose(loss, expected, atol=1e-6)
    finally:
        model.zero_grad()
        model.eval()


@every
@pytest.mark.parametrize("given", ["labels", "shift_labels"])
def test_a_forward_of_a_trainer_finds_labels_that_fit(method, given):
    """As trl's fused head, which runs the backbone and scores its states by the labels itself."""
    model = zoo.model("llava")
    batch, labels = labelled()

    def fused(self, labels=None, shift_labels=None, **kwargs):
        hidden = self.base_model(use_cache=False, **kwargs).last_hidden_state
        target = shift_labels
        if shift_labels is None:
            hidden, target = hidden[:, :-1], labels[:, 1:]
        logits = self.get_output_embeddings()(hidden)
        return {"loss": cross_entropy(logits.flatten(0, 1), target.flatten())}

    with foveate.attach(model, method), torch.no_grad():
        expected = model(**batch, labels=labels).loss
        model.forward = types.MethodType(fused, model)
        told = {given: labels if given == "labels" else shifted(labels)}
        before = told[given].clone()
        try:
            loss = model(**batch, **told)["loss"]
        finally:
            del model.forward
    assert torch.allclose(loss, expected, atol=1e-6)
    # The caller's own labels are left alone.
    assert torch.equal(told[given], before)


@every
def test_shifted_labels_and_counts_reach_the_models_own_loss(method):
    model = zoo.model("llava")
    batch, labels = labelled()
    with foveate.attach(model, method) as att, torch.no_grad():
        expected = model(**batch, labels=labels).loss
        both = model(**batch, labels=labels, shift_labels=shifted(labels)).loss
        summed = model(**batch, labels=labels, num_items_in_batch=torch.tensor(1)).loss
        order = ("input_ids", "pixel_values", "attention_mask")
        by_place = model(*(batch[name] for name in order), labels=labels).loss
        count = (att.align_labels(labels)[:, 1:] != -100).sum()
    assert torch.allclose(both, expected, atol=1e-6)
    assert torch.allclose(summed, count * expected, rtol=1e-5)
    assert torch.allclose(by_place, expected, atol=1e-6)
