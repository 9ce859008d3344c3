"""Training of the embedded models (`model_specs`): half an hour to a few hours on a CPU, or a GPU.

1. Vision warm-up (`alignment`): visual tokens learn the words that are true of their patch, the CLS
   token the contents of the image, early layers the silhouettes. A model of this size that is
   trained on questions alone stays at the best constant answer.
2. Joint training of all parameters on questions: cross-entropy on the answers only, many questions
   per image (`packing`). The warm-up losses stay on with falling weight.

Training never drops visual tokens. A model that was trained with dropped tokens would be robust to
the very effect that the bench measures.

On a CPU each thread draws and computes a part of the batch. On a GPU the whole batch is computed in
bfloat16 with float32 weights, and worker processes draw the next batches (`prefetch`).
"""

import copy
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import checkpoint, training_batches
from .alignment import Alignment, Seen
from .architecture import new_processor
from .card import write_card
from .errors import TrainingError
from .model_specs import NANO, ModelSpec, Recipe
from .packing import ATTENTION, PREFIX, pack
from .prefetch import Prefetcher
from .progress import bar
from .weights_loading import silent_bars
from .world.keys import WORLD_VERSION
from .world.scene import Canvas
from .world.vocabulary import ids


class Trainer:
    """The state of a run: model, optimiser, step, running accuracies, history.

    Args:
        recipe: hyper-parameters.
        seed: of the initial weights and the training data.
        threads: threads that compute the shards of a batch on a CPU; on a GPU, processes that draw
            batches.
        spec: the model to train.
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        threads: int = 1,
        spec: ModelSpec = NANO,
        device: str | torch.device = "cpu",
    ):
        self.recipe, self.seed, self.spec = recipe, seed, spec
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self.shards = 1 if self.on_gpu else recipe.shards
        self.config = spec.config()
        self.canvas = Canvas(
            self.config.vision_config.image_size, self.config.vision_config.patch_size
        )
        self.model = spec.start(self.config, seed).train().to(self.device)
        self.model.model.language_model.set_attn_implementation(ATTENTION)
        self.processor = new_processor(self.config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            self.alignment = Alignment(self.config.vision_config).to(self.device)
        self.parameters = [*self.model.parameters(), *self.alignment.parameters()]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters if p.ndim > 1]},
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.step = 0
        self.seconds = 0.0
        self.accuracy = {name: 0.0 for name in spec.tasks}
        self.history: list[dict] = []
        self._sums: dict[str, list[float]] = {}
        self.workers = ThreadPoolExecutor(min(threads, self.shards))
        self.prefetcher = Prefetcher(self._request, recipe.steps, threads) if self.on_gpu else None
        with torch.no_grad():
            # The first call sets up recorders in transformers. Threads must not race for it.
            side = self.canvas.size
            self.encode(torch.zeros(1, 3, side, side, device=self.device))

    def close(self) -> None:
        """End the threads and processes. No step can follow."""
        self.workers.shutdown()
        if self.prefetcher is not None:
            self.prefetcher.close()

    # -- one step ------------------------------------------------------------------------------

    def _rate(self) -> float:
        r = self.recipe
        warm = self.step < r.warm_up_steps
        at = self.step if warm else self.step - r.warm_up_steps
        rise = min(1.0, (at + 1) / r.ramp_steps)
        if warm:
            return r.warm_up_rate * rise
        fall = r.floor + (1 - r.floor) * 0.5 * (1 + math.cos(math.pi * at / r.joint_steps))
        return r.learning_rate * rise * fall

    def _request(self, step: int, shard: int = 0) -> dict:
        """Arguments of `training_batches.draw` for a step; tasks weighted by current accuracy."""
        r = self.recipe
        warm = step < r.warm_up_steps
        batch = (r.warm_up_batch if warm else r.joint_batch) // self.shards
        done = min(step, r.warm_up_steps) * r.warm_up_batch
        done += max(0, step - r.warm_up_steps) * r.joint_batch
        return {
            "first": done + shard * batch,
            "batch": batch,
            "canvas": self.canvas,
            "seed": self.seed,
            "tasks": self.spec.tasks,
            # Tasks with more errors get more images.
            "weights": {name: 1.1 - accuracy for name, accuracy in self.accuracy.items()},
            "level": min(1.0, step / r.easy_steps),
            "questions": 0 if warm else r.questions,
        }

    def _batch(self, shard: int) -> training_batches.TrainingBatch:
        if self.prefetcher is not None:
            return self.prefetcher.batch(self.step).to(self.device)
        return training_batches.draw(**self._request(self.step, shard)).to(self.device)

    def encode(self, pixels: Tensor) -> Seen:
        """Images (B, 3, H, W) through the vision encoder and the projector."""
        seen = self.model.model.vision_tower(pixels, output_hidden_states=True, return_dict=True)
        layers = [hidden[:, 1:] for hidden in seen.hidden_states]
        tokens = self.model.model.multi_modal_projector(layers[self.config.vision_feature_layer])
        return Seen(tokens, seen.pooler_output, layers)

    def answer_loss(self, tokens: Tensor, questions) -> tuple[Tensor, list[tuple[str, bool]]]:
        """Cross-entropy on the answers, and by question its task and whether it was correct."""
        packed = pack(questions, self.processor.tokenizer, tokens.shape[1], self.device)
        embed = self.model.get_input_embeddings()
        front = embed(torch.tensor([ids()[word] for word in PREFIX], device=self.device))
        inputs = torch.cat([front.expand(len(tokens), -1, -1), tokens, embed(packed.text)], 1)
        hidden = self.model.model.language_model(
            inputs_embeds=inputs,
            attention_mask=packed.mask,
            position_ids=packed.positions,
            use_cache=False,
            head=front.shape[0] + tokens.shape[1],
        ).last_hidden_state[:, -packed.text.shape[1] :]
        asked = packed.targets >= 0
        logits, targets = self.model.lm_head(hidden[asked]), packed.targets[asked]
        flat = [q.task for row in questions for q in row]
        wrong = torch.zeros(len(flat), device=self.device).index_add_(
            0, packed.answer[asked], (logits.argmax(-1) != targets).float()
        )
        marks = [(task, errors == 0) for task, errors in zip(flat, wrong.tolist(), strict=True)]
        return F.cross_entropy(logits, targets), marks

    def _shard(self, shard: int) -> tuple[dict, list, list[Tensor | None]]:
        """Losses, correctness and gradients of one shard of the batch, on one thread."""
        # The setting is per thread. One thread adds in a fixed order, so runs are reproducible.
        torch.set_num_threads(1)
        r = self.recipe
        batch = self._batch(shard)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu):
            seen = self.encode(batch.normalised())
            loss = self.alignment(seen, self.model.get_input_embeddings().weight, batch)
            losses, marks = {"alignment": loss.item()}, []
            if self.step >= r.warm_up_steps:
                start, end = r.alignment
                weight = start + (end - start) * (self.step - r.warm_up_steps) / r.joint_steps
                answers, marks = self.answer_loss(seen.tokens, batch.questions)
                losses["answers"] = answers.item()
                loss = answers + weight * loss
        grads = torch.autograd.grad(loss / self.shards, self.parameters, allow_unused=True)
        return losses, marks, list(grads)

    def advance(self) -> dict:
        """One training step; the losses by name."""
        shards = list(self.workers.map(self._shard, range(self.shards)))
        by_shard = [grads for _, _, grads in shards]
        for parameter, *parts in zip(self.parameters, *by_shard, strict=True):
            used = [grad for grad in parts if grad is not None]
            # The fused optimiser needs gradients with the memory layout of their parameters.
            parameter.grad = sum(used[1:], start=used[0]).contiguous() if used else None
        for _, marks, _ in shards:
            for task, right in marks:
                self.accuracy[task] += 0.005 * (right - self.accuracy[task])
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimiser.step()
        self.step += 1
        names = shards[0][0]
        return {name: sum(s[0][name] for s in shards) / len(shards) for name in names}

    def run(self) -> Iterator[dict]:
        """Train to the end of the recipe; yields the losses of each step."""
        while self.step < self.recipe.steps:
            began = time.perf_counter()
            losses = self.advance()
            self.seconds += time.perf_counter() - began
            for name, value in losses.items():
                self._sums.setdefault(name, []).append(value)
            if self.step % 50 == 0 or self.step == self.recipe.steps:
                record = {"step": self.step, "seconds": round(self.seconds, 1)}
                record |= {k: round(sum(v) / len(v), 4) for k, v in self._sums.items()}
                if self.step > self.recipe.warm_up_steps:
                    record["accuracy"] = {k: round(v, 3) for k, v in self.accuracy.items()}
                self.history.append(record)
                self._sums = {}
            yield losses

    # -- checkpoints ---------------------------------------------------------------------------

    def _identity(self) -> dict:
        """What a checkpoint must have been made with to continue this run."""
        return {"recipe": asdict(self.recipe), "seed": self.seed}

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on."""
        state = {
            "model": self.model.state_dict(),
            "alignment": self.alignment.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "accuracy": self.accuracy,
            "history": self.history,
            "sums": self._sums,
        }
        checkpoint.save(path, self._identity(), state)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe and seed, from any device."""
        state = checkpoint.load(path, self._identity())
        self.model.load_state_dict(state["model"])
        self.alignment.load_state_dict(state["alignment"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.accuracy, self.history = state["accuracy"], state["history"]
        self._sums = state["sums"]


def train(
    out: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    threads: int | None = None,
    resume: bool = True,
    progress: bool = True,
    recipe: Recipe | None = None,
    evaluate: int = 1000,
    spec: ModelSpec = NANO,
    device: str | None = None,
) -> Path:
    """Train an embedded model and write it to a folder, with its model card.

    A script that trains on a GPU must call this under ``if __name__ == "__main__"``, because worker
    processes draw the batches. On a GPU a resumed run can differ from an uninterrupted one: sums
    have no fixed order, and batches in the queue are requested again with later accuracies.

    Args:
        out: folder to write, in the format of transformers.
        seed: of the initial weights and the training data.
        steps: number of steps; None is the recipe's. The stages shrink or grow in proportion.
        threads: CPU threads, at most one per shard (default). On a GPU: processes that draw
            batches, one per core by default. The weights do not depend on it.
        resume: continue from ``out/checkpoint.pt`` if it exists. On a CPU the weights then equal
            those of an uninterrupted run.
        progress: show a progress bar.
        recipe: hyper-parameters; None is those of ``spec``.
        evaluate: test items per task for the model card; 0 for none.
        spec: the model to train.
        device: "cpu" or "cuda"; None uses a GPU if there is one.
    """
    place = device_of(device)
    recipe = recipe or spec.recipe
    if steps is not None:
        if steps < 2:
            raise TrainingError(f"steps={steps} is too small: each of the two stages needs a step.")
        recipe = recipe.shortened(steps)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    on_gpu = place.type == "cuda"
    threads = threads or ((os.cpu_count() or 1) if on_gpu else recipe.shards)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = Trainer(recipe, seed, threads, spec, place)
        saved = out / "checkpoint.pt"
        if resume and saved.exists():
            trainer.restore(saved)
        title = f"training {spec.name}"
        with closing(trainer), bar(title, recipe.steps, trainer.step, progress) as tick:
            for losses in trainer.run():
                tick(trainer.step, " ".join(f"{k} {v:.3f}" for k, v in losses.items()))
                if trainer.step % recipe.checkpoint_every == 0 or trainer.step == recipe.steps:
                    trainer.save(saved)
                    (out / "history.json").write_text(json.dumps(trainer.history))
        export(trainer, out)
        facts = {
            "name": spec.name,
            "world": WORLD_VERSION,
            "seed": seed,
            "recipe": asdict(recipe),
            "device": torch.cuda.get_device_name(place) if on_gpu else "cpu",
            "threads": threads,
            "seconds": round(trainer.seconds),
            "origin": spec.origin,
            "history": trainer.history,
        }
        write_card(out, facts, list(spec.tasks), evaluate, progress, place)
    finally:
        torch.set_num_threads(before)
    return out


def device_of(name: str | None) -> torch.device:
    """The device of this name; None is CUDA if there is a GPU, else the CPU."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise TrainingError(f"device={name!r} is unknown: use cpu or cuda.")
    if name != "cpu" and not torch.cuda.is_available():
        raise TrainingError(f"device={name!r}: PyTorch finds no CUDA device here; use cpu.")
    return torch.device(name)


def export(trainer: Trainer, out: Path) -> None:
    """Write the weights as bfloat16 safetensors, with configuration and processor."""
    model = copy.deepcopy(trainer.model).to("cpu", torch.bfloat16).eval()
    with silent_bars():
        model.save_pretrained(out)
    trainer.processor.save_pretrained(out)
    # save_pretrained makes only the weights unreadable for other users.
    (out / "model.safetensors").chmod(0o644)
