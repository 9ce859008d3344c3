"""ZipVL: the quantiser and the normalised score, which its authors published with ZipCache."""

import torch

from foveate.methods.caches.zipvl import ZipVL
from foveate.ops.attention import Heads
from foveate.ops.packed import pack_tokens
from foveate.ops.quantise import pack, unpack
from tests.conformance.reading import only


def _packed(inputs, params):
    x = inputs["x"]
    valid = torch.ones(len(x), x.shape[2], dtype=torch.bool)
    important = torch.zeros_like(valid).index_fill_(1, inputs["important"], True)
    bits = params["bits_important"], params["bits_unimportant"]
    return pack_tokens(x, x, valid, important, bits)


def _flat(x):
    """(H, N, d) as (N, H * d): the authors lay heads side by side, we one behind the other."""
    return x.transpose(0, 1).flatten(1)


def _bytes(codes):
    """Packed codes as the authors' layout has them."""
    flat = _flat(unpack(codes.data, codes.bits, codes.channels))
    return pack(flat, codes.bits).long()


def quantize_key(inputs, weights, params):
    packed = _packed(inputs, params)
    important, rest = packed.rows[0].keys
    return {
        "dequant": packed.read()[0],
        "packed_important": _bytes(important)[None, None],
        "packed_unimportant": _bytes(rest)[None, None],
        "important_min": _flat(important.low)[0],
        "important_step": _flat(important.step)[0],
    }


def quantize_value(inputs, weights, params):
    packed = _packed(inputs, params)
    important, rest = packed.rows[0].values
    return {
        "dequant": packed.read()[1],
        "packed_important": _bytes(important)[None],
        "packed_unimportant": _bytes(rest)[None],
        "channel_scale": _flat(packed.rows[0].scale)[0],
        "important_min": important.low[..., 0],
        "important_step": important.step[..., 0],
    }


def score(inputs, weights, params):
    query, key = inputs["query"], inputs["key"]
    only(
        params,
        num_heads=query.shape[1],
        denominator="N - j",
        scope="per kv head, sum over query heads of the group",
    )
    method = ZipVL(denominators="zipcache")
    shared = params["num_kv_heads"]
    valid = torch.ones(len(key), key.shape[2], dtype=torch.bool)
    rows = inputs["probe_ids"][None]
    scores = []
    for q, k in zip(query.chunk(shared, 1), key.chunk(shared, 1), strict=True):
        heads = Heads(q, k, params["head_dim"] ** -0.5, valid)
        _, mean = method.score(heads, rows, torch.ones_like(rows, dtype=torch.bool))
        # Summed over the query heads of a group there, a mean here.
        scores.append(mean * q.shape[1])
    score = torch.stack(scores, 1)
    low = int(params["unimportant_ratio"] * key.shape[2])
    return {"score": score, "unimportant": score.argsort(dim=-1, stable=True)[..., :low]}


OPS = {"quantize_key": quantize_key, "quantize_value": quantize_value, "score": score}
