"""The tokenizer and the processor survive being saved, and read what people write."""

import pytest
from PIL import Image
from transformers import AutoProcessor

from foveate.mini.architecture import nano_config, new_processor
from foveate.mini.evaluate import prompt
from foveate.mini.text import build_tokenizer
from foveate.mini.world.vocabulary import ids, words


def test_every_word_survives_the_round_trip():
    tokenizer = build_tokenizer()
    assert tokenizer.convert_ids_to_tokens(range(len(words()))) == list(words())
    for word in (w for w in words() if not w.startswith("<unused")):
        assert tokenizer(word).input_ids == [ids()[word]], word


@pytest.mark.parametrize(
    "text, read",
    [
        ("What colour is the star?", "what colour is the star?"),
        ("is it at the top-left, or in the center?", "is it at the top-left, or in the center?"),
        ("how many? 42", "how many? 4 2"),
        ("(A) red (B) blue", "( A ) red ( B ) blue"),
    ],
)
def test_sentences_are_read(text, read):
    tokenizer = build_tokenizer()
    encoded = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in encoded
    assert tokenizer.decode(encoded) == read
    assert tokenizer(tokenizer.decode(encoded)).input_ids == encoded


def test_unknown_words_are_unknown():
    tokenizer = build_tokenizer()
    assert tokenizer("find zirconium").input_ids == [ids()["find"], tokenizer.unk_token_id]


def test_special_tokens_have_the_ids_of_the_configuration():
    tokenizer, config = build_tokenizer(), nano_config()
    for owner in (config, config.text_config):
        assert tokenizer.pad_token_id == owner.pad_token_id
        assert tokenizer.bos_token_id == owner.bos_token_id
        assert tokenizer.eos_token_id == owner.eos_token_id
    assert config.image_token_id == ids()["<image>"] < config.text_config.vocab_size


def test_chat_template_holds_several_turns():
    processor = new_processor(nano_config())
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]},
        {"role": "assistant", "content": "star"},
        {"role": "user", "content": [{"type": "text", "text": "where is it?"}]},
    ]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert text == (
        "<bos><user><image>what is it?<assistant>star<eos><user>where is it?<assistant>"
    )


def test_processor_round_trip(tmp_path):
    processor = new_processor(nano_config())
    processor.save_pretrained(tmp_path)
    image = Image.new("RGB", (90, 50), (10, 200, 30))
    text = prompt(processor, "what colour is the star?")
    first = processor(images=image, text=text, return_tensors="pt")
    again = AutoProcessor.from_pretrained(tmp_path, local_files_only=True)
    assert type(again) is type(processor)
    assert type(again.image_processor) is type(processor.image_processor)
    text = prompt(again, "what colour is the star?")
    second = again(images=image, text=text, return_tensors="pt")
    assert set(first) == set(second)
    for name in first:
        assert (first[name] == second[name]).all()
    assert first["pixel_values"].shape == (1, 3, 64, 64)
    assert (first["input_ids"] == ids()["<image>"]).sum() == 64
