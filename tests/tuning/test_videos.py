"""Video samples: as videos for video models, as images for image models."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import BatchFeature

import foveate
from foveate.tuning import read_samples
from foveate.tuning.batches import batches_of
from tests.families import zoo
from tests.media.filming import film, numbers


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    rows = []
    for i in range(6):
        film(folder / f"{i}.mp4", 10 + 10 * i)
        row = {"video": f"{i}.mp4", "question": "what colour ?", "answer": "red"}
        rows.append({**row, "choices": ["red", "green"]})
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_an_image_model_gets_video_frames_as_images(pair, data):
    samples = read_samples(data)
    (batch, *_) = batches_of(*pair, samples, 4, frames=3)["likelihood"]
    assert batch.numbers == [0, 1, 2, 3]
    image = pair[0].config.image_token_id
    assert (batch.inputs["input_ids"] == image).sum(1).tolist() == [3 * 64] * 4


def test_videos_with_fewer_frames_are_batched_separately(pair, data, tmp_path):
    samples = read_samples(data)
    short = film(tmp_path / "short.mp4", 2)
    samples[1] = type(samples[1])("what colour ?", "red", (), ("red", "green"), True, short)
    batches = batches_of(*pair, samples, 8, frames=4)["likelihood"]
    assert sorted(batch.numbers for batch in batches) == [[0, 2, 3, 4, 5], [1]]


def test_a_search_on_videos(pair, data, tmp_path):
    asked = {"methods": ["uniform"], "keep": [0.5], "max_drop": 0.9, "batch": 4, "frames": 2}
    plan = foveate.tune(*pair, data, folder=tmp_path / "kept", **asked)
    assert plan.held_out["n"] == 3 and plan.held_out["tokens"] == pytest.approx(64)
    # Other frames are other measurements.
    with pytest.raises(foveate.FoveateError, match="frames"):
        foveate.tune(*pair, data, folder=tmp_path / "kept", **{**asked, "frames": 3})


class Watching:
    """A processor of LLaVA-OneVision's kind; the real one needs torchvision."""

    video_processor = object()
    video_token = "<video>"
    tokenizer = SimpleNamespace(padding_side="right")

    def __call__(self, text, videos, video_metadata, do_sample_frames, add_special_tokens, **_):
        assert add_special_tokens  # Its prompts bring no token that begins a text.
        assert self.tokenizer.padding_side == "left" and not do_sample_frames
        self.seen = text, videos, video_metadata
        made = zoo.batch(
            "llava_onevision", [zoo.sample("llava_onevision", "video") for _ in videos]
        )
        frames = torch.stack([torch.from_numpy(v).float().mean((1, 2, 3)) / 255 for v in videos])
        pixels = frames[:, :, None, None, None].expand(-1, -1, 3, 56, 56)
        return BatchFeature({**made, "pixel_values_videos": pixels.clone()})


def test_a_video_model_gets_videos(data):
    processor = Watching()
    model = zoo.model("llava_onevision")
    batches = batches_of(model, processor, read_samples(data)[:2], 2, frames=3)
    texts, videos, facts = processor.seen
    assert texts == ["<video>\nwhat colour ?"] * 2
    assert [numbers(list(v)) for v in videos] == [[1, 5, 8], [3, 10, 16]]
    assert facts[1]["frames_indices"] == [3, 10, 16] and facts[1]["fps"] == pytest.approx(10)
    (batch,) = batches["likelihood"]
    with torch.no_grad(), foveate.attach(model, foveate.Uniform(keep=0.5)) as attached:
        model(**batch.inputs)
    assert attached.report.tokens_in == [13, 13]
    assert attached.report.tokens_out[0] < 13
