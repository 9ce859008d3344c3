"""SparseVLM: its own `at_boundary` on given embeddings and attention, and its clusters."""

import torch

from foveate.engine.decoder.columns import merge_columns
from foveate.methods.layers.sparsevlm import SparseVLM, clustered
from foveate.ops.attention import Heads
from foveate.parts import Merge
from foveate.signals import DecoderHeads
from tests.conformance.boundary import one_sample, staying


def score_select(inputs, weights, params):
    embeds, attention = inputs["embeds"][None], inputs["attn"][None]
    n, start, length = embeds.shape[1], params["image_start"], params["image_len"]
    # Logarithms as queries against unit keys: their softmax is the attention itself.
    unit = torch.eye(n).expand(attention.shape)
    whole = torch.ones(1, n, dtype=torch.bool)
    heads = Heads(attention.clamp(min=1e-30).log(), unit, 1.0, whole)
    state = one_sample(embeds, start, length, {DecoderHeads(): heads})
    method = SparseVLM(pruning_layers=(0,), retained=(params["budget"],), recycle=False)
    assert method.at_boundary(0, 2, state) is None
    kept = staying(method.at_boundary(1, 2, state), state)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[kept] = True
    raters = state.notes["raters"][0, 0].nonzero()[:, 0]
    assert (raters >= start).all()
    return {
        "raters": raters - start,
        "score": method._score(state)[0, start : start + length],
        "mask": mask[start : start + length],
    }


def cluster(inputs, weights, params):
    x, count = inputs["tokens"], params["cluster_num"]
    # The noise only decides between copies, where ours takes the first one.
    assert inputs["noise"].abs().max() <= 1
    group, centre, share = clustered(x, count)
    pooled = merge_columns(x, Merge(centre.gather(1, group), share))
    return {"merged": pooled.gather(1, centre[..., None].expand(-1, -1, x.shape[2]))}


OPS = {"score_select": score_select, "cluster": cluster}
