"""Relevance on toys that can be worked out by hand, and on nano."""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate.benchmarks.loaded_model import inspect_model
from foveate.training.batches import IGNORED, draw
from foveate.training.relevance import attention_maps, explained, overlap, relevance, upper_half


@pytest.fixture(scope="module")
def nano():
    return foveate.mini("nano")


def test_one_layer_is_what_it_says():
    attention = torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]])
    gradient = torch.tensor([[[[3.0, 2.0], [4.0, -1.0]]]])
    # R = I + relu(A * dA): the last row is (0.25 * 4, 1 + 0).
    row = explained(torch.tensor([[0.0, 1.0]]), [attention], (gradient,))
    assert row.tolist() == [[1.0, 1.0]]


def test_a_row_is_that_of_the_whole_matrix():
    g = torch.Generator().manual_seed(0)
    maps = [torch.rand(1, 3, 5, 5, generator=g) for _ in range(4)]
    gradients = tuple(torch.randn(1, 3, 5, 5, generator=g) for _ in range(4))
    whole = torch.eye(5)
    for a, d in zip(maps, gradients, strict=True):
        whole = whole + (a[0] * d[0]).relu().mean(0) @ whole
    assert (whole >= torch.eye(5)).all()
    row = explained(torch.eye(5)[4:], maps, gradients)
    torch.testing.assert_close(row[0], whole[4])


def test_labels_forget_the_lower_half_and_sum_to_one():
    shares = upper_half(torch.tensor([[4.0, 1.0, 2.0, 6.0]]))
    torch.testing.assert_close(shares, torch.tensor([[0.4, 0.0, 0.0, 0.6]]))


def test_overlap_counts_the_best():
    truth = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    assert overlap(truth, truth).tolist() == [1.0]
    assert overlap(-truth, truth).tolist() == [0.0]
    assert overlap(torch.tensor([[1.0, 0.0, 2.0, 0.5]]), truth).tolist() == [0.5]


def test_padding_has_no_relevance_and_rows_are_those_of_single_samples(nano):
    model, processor = nano
    batch = draw(inspect_model(model, processor), 0, 0, pictures=2, questions=2)
    kernel = model.get_decoder().config._attn_implementation
    scores, right = relevance(model, batch.inputs, batch.labels)
    assert scores.shape == batch.labels.shape and right.dtype == torch.bool
    assert (scores[batch.inputs["attention_mask"] == 0] == 0).all()
    visual = batch.inputs["input_ids"] == model.config.image_token_id
    assert (scores[visual] > 0).any() and (scores >= 0).all()
    one = {k: v[1:2] for k, v in batch.inputs.items()}
    alone, _ = relevance(model, one, batch.labels[1:2])
    torch.testing.assert_close(alone[0], scores[1], rtol=1e-3, atol=1e-5)
    assert model.get_decoder().config._attn_implementation == kernel


def test_a_wrong_answer_is_told(nano):
    model, processor = nano
    batch = draw(inspect_model(model, processor), 0, 0, pictures=1, questions=1)
    labels = batch.labels.clone()
    column = int((labels[0] != IGNORED).nonzero()[0])
    labels[0, column] = (labels[0, column] + 1) % 100
    assert not relevance(model, batch.inputs, labels)[1].any()


def test_the_model_is_as_it_was(nano):
    model, _ = nano
    with pytest.raises(RuntimeError), attention_maps(model):
        raise RuntimeError
    layers = model.get_decoder().layers
    assert not any(layer.self_attn._forward_hooks for layer in layers)
