"""`foveate ask`: one question about pictures, with what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.models import DEFAULT
from foveate.cli.options import (
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    JsonOption,
    ModelOption,
    SettingsOption,
)


def ask(
    media: Annotated[list[str], typer.Argument(help="Pictures; - reads one from standard input.")],
    question: Annotated[
        str,
        typer.Option(
            "--question",
            "-q",
            help="What to ask about them. Lines <image> at its start or end, one per picture, say "
            "where the pictures stand; other control tokens are refused.",
        ),
    ],
    model: ModelOption = DEFAULT,
    method: Annotated[
        str | None, typer.Option(help="Slug of a method; several act together as a+b.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Tokens to keep per picture: 64, 0.25 or 25%; each of a+b.")
    ] = None,
    set_: SettingsOption = None,
    plan: Annotated[
        Path | None, typer.Option(help="What 'foveate tune' found, in place of --method.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Write a picture of what was kept to this file.")
    ] = None,
    heatmap: Annotated[
        Path | None, typer.Option(help="Write a picture of the token scores to this file.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Ask a model about pictures, with fewer visual tokens."""
    # Cheap mistakes are found before the model loads.
    from foveate.cli.method_options import build_method
    from foveate.cli.overlay_file import check_overlay, write_heatmap, write_overlay
    from foveate.errors import FoveateError
    from foveate.media import load_image

    if not question.strip():
        raise FoveateError("The question is empty; write one behind -q.")
    check_overlay(overlay)
    check_overlay(heatmap, "--heatmap")
    images = [load_image(source) for source in media]
    if plan is None:
        chosen = build_method(method, keep, set_ or ())
    elif method is not None or keep is not None or set_:
        raise FoveateError("--plan brings a method with it; leave out --method, --keep and --set.")
    else:
        from foveate.tuning.plan import from_plan

        chosen = from_plan(plan)

    from foveate.answering import answer
    from foveate.cli.console import print_json, waiting
    from foveate.cli.models import load_model

    with waiting(f"loading {model}"):
        loaded, processor = load_model(model, device.value, dtype.value)
    unknown = _unknown_words(processor, question)
    if unknown:
        typer.echo(f"Note: {model} doesn't know the words {', '.join(unknown)}.", err=True)
    with waiting("answering"):
        result = answer(
            loaded, processor, images, question, chosen, max_new_tokens, heatmap is not None
        )
    if overlay is not None:
        write_overlay(overlay, images, processor, result.report, question, result.text)
    if heatmap is not None:
        write_heatmap(heatmap, images, processor, result.report, question, result.text)
    if as_json:
        print_json(
            {
                "answer": result.text,
                "question": question,
                "media": media,
                "model": model,
                "method": chosen.to_dict() if method or plan else None,
                "overlay": str(overlay) if overlay else None,
                "heatmap": str(heatmap) if heatmap else None,
                "report": result.report.to_dict(),
            }
        )
        return
    _print(result, f"{chosen if method or plan else 'no method'} on {model}", overlay)
    if heatmap is not None:
        typer.echo(f"heatmap: {heatmap}")


def _unknown_words(processor: Any, question: str) -> list[str]:
    """Words that a word-level tokenizer, as the embedded models have, can't spell."""
    tokenizer = processor.tokenizer
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return []
    words = question.replace("?", " ").replace(".", " ").replace(",", " ").split()
    return [
        repr(word) for word in words if unknown in tokenizer.encode(word, add_special_tokens=False)
    ]


def _print(result: Any, title: str, overlay: Path | None) -> None:
    from foveate.cli.console import console
    from foveate.cli.figures import figures, stage_times

    out = console()
    out.print(result.text or "(no words)", style="bold", markup=False, soft_wrap=True)
    out.print(f"\n{title}", style="cyan", markup=False)
    out.print(figures(result.report))
    out.print(stage_times(result.report.seconds), style="dim")
    if overlay is not None:
        out.print(f"overlay: {overlay}", markup=False)
