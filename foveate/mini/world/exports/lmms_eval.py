"""Tasks for lmms-eval: a YAML file and JSON lines per task, loaded with ``--include_path DIR``.

Each turn of a dialogue is a row of its own, with what was said before it in the text.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ..item import PICTURE, Item, Turn
from .jsonl import by_task
from .pictures import save

MODULE = "world_documents"
GROUP = "world"
_YAML = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    {split}: {data}
test_split: {split}
output_type: generate_until
doc_to_visual: !function {module}.doc_to_visual
doc_to_text: !function {module}.doc_to_text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  do_sample: false
process_results: !function {module}.process_results
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
lmms_eval_specific_kwargs:
  default:
    pre_prompt: ""
    post_prompt: "\\n{post_prompt}"
metadata:
  - version: {version}
"""
_POST_PROMPT = {
    "word": "Answer with a single word or number.",
    "letter": "Answer with the letter of the right option.",
}
_CODE = '''\
"""How lmms-eval reads the rows beside this file."""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent


def doc_to_visual(doc):
    """The pictures of a row."""
    return [Image.open(HERE / path).convert("RGB") for path in doc["images"]]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    """The question between the prompts of the task file."""
    extra = lmms_eval_specific_kwargs or {}
    return extra.get("pre_prompt", "") + doc["question"] + extra.get("post_prompt", "")


def process_results(doc, results):
    """1 for the right word or letter, whatever its case and the signs around it."""
    said = results[0].strip().strip("().,:!").lower()
    return {"exact_match": float(said == doc["answer"].lower())}
'''


def _history(item: Item, turn: int) -> str:
    """What stands before a question: other pictures and words, earlier questions and answers."""
    parts = list(item.content) if item.content != (PICTURE,) else []
    for earlier in item.turns[:turn]:
        parts += [earlier.question, earlier.answer]
    return "".join(part if part == PICTURE else f"{part}\n" for part in parts)


def rows(item: Item, images: list[str]) -> list[dict]:
    """One row, or one for each turn."""
    asked: Sequence[Item | Turn] = item.turns or (item,)
    return [
        {
            "id": item.id if not item.turns else f"{item.id}/turn{k}",
            "task": item.task,
            "images": images,
            "question": _history(item, k) + one.question,
            "options": list(one.options),
            "answer": one.answer,
            "candidates": list(one.candidates),
        }
        for k, one in enumerate(asked)
    ]


def write(items: Sequence[Item], folder: Path) -> list[Path]:
    """``world_i3.yaml`` and ``world_i3.jsonl`` for each task, and a group of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{MODULE}.py").write_text(_CODE, encoding="utf-8")
    written, names = [], []
    for task, group in by_task(items).items():
        name = f"{GROUP}_{task.lower()}"
        data = (folder / f"{name}.jsonl").resolve()
        with data.open("w", encoding="utf-8") as lines:
            for item in group:
                for row in rows(item, save(item, folder)):
                    lines.write(json.dumps(row) + "\n")
        text = _YAML.format(
            name=name,
            split=group[0].split.replace("-", "_"),
            data=json.dumps(str(data)),
            module=MODULE,
            post_prompt=_POST_PROMPT["letter" if group[0].options else "word"],
            version=json.dumps(group[0].id.split("/")[0]),
        )
        target = folder / f"{name}.yaml"
        target.write_text(text, encoding="utf-8")
        names.append(name)
        written.append(target)
    listed = "".join(f"  - {name}\n" for name in names)
    whole = folder / f"{GROUP}.yaml"
    whole.write_text(f"group: {GROUP}\ntask:\n{listed}", encoding="utf-8")
    return [whole, *written]
