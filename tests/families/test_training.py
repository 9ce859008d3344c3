"""Targets follow the tokens that are left."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

import foveate

from . import zoo
from .laws import dropped, once, stages
from .reference import Reference
from .running import TOLERANCE


def hand_made_loss(model, name, samples, labels, method) -> torch.Tensor:
    """Mean over the targets that are left, each predicted from the column before it."""
    total, count = 0.0, 0
    for row, sample in enumerate(samples):
        drop = dropped(sample, method)
        logits = Reference(model, name, sample).run(drop)
        own = labels[row, -len(sample.ids) :][drop.kept]
        total += cross_entropy(logits[:-1], own[1:], reduction="sum")
        count += int((own[1:] != -100).sum())
    return total / count


@once
@stages
def test_labels_follow_their_tokens(name, modality, method):
    model = zoo.model(name)
    samples = [zoo.sample(name, modality, i) for i in (0, 1)]
    inputs = zoo.batch(name, samples)
    labels = inputs["input_ids"].clone()
    labels[(labels == zoo.IMAGE) | (labels == zoo.VIDEO)] = -100
    for row, sample in enumerate(samples):
        # Nothing that counts stands before a row's first token.
        labels[row, : -len(sample.ids) + 1] = -100
    with foveate.attach(model, method):
        out = model(**inputs, labels=labels)
        out.loss.backward()
    expected = hand_made_loss(model, name, samples, labels, method)
    assert abs(out.loss - expected) < TOLERANCE
    grad = model.get_decoder().layers[0].mlp.down_proj.weight.grad
    assert torch.isfinite(grad).all() and grad.abs().max() > 0
    model.zero_grad()


@stages
def test_padding_that_dropping_made_predicts_nothing(method):
    """A row that gets shorter than its neighbour has padding in front that was not there before."""
    model = zoo.model("llava")
    picture = zoo.sample("llava", "image", 0)
    samples = [picture, zoo.Sample(zoo.words(7, len(picture.ids)), None)]
    inputs = zoo.batch("llava", samples)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == zoo.IMAGE, -100)
    with foveate.attach(model, method), torch.no_grad():
        loss = model(**inputs, labels=labels).loss
    expected = hand_made_loss(model, "llava", samples, labels, method)
    assert abs(loss - expected) < TOLERANCE
