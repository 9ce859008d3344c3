"""Options that several commands share, declared once with their help texts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(StrEnum):
    """Data type of the weights and activations."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


ModelOption = Annotated[
    str, typer.Option("--model", help="Embedded model, local folder, or Hugging Face Hub name.")
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="auto: CUDA if available, else CPU.")
]
DtypeOption = Annotated[
    Dtype, typer.Option("--dtype", help="auto: bfloat16 on CUDA, else float32.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A parameter of the method; repeatable. With several methods SLUG.NAME=VALUE sets it "
        "for one of them.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, without a progress bar.")
]
