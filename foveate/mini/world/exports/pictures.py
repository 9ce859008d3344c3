"""PNG files of an item's pictures, and the folder that takes them."""

from pathlib import Path

from ..item import Item
from ..keys import WorldError


def check_folder(folder: Path, force: bool = False) -> None:
    """Refuse a path that holds other things."""
    if folder.exists() and not folder.is_dir():
        raise WorldError(f"{str(folder)!r} is a file; name a folder.")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise WorldError(f"The folder {str(folder)!r} is not empty; empty it or pass --force.")


def names(item: Item) -> list[str]:
    """Paths of the pictures, relative to the export's folder."""
    stem = f"images/{item.task}/{item.split}-{item.media['size']}-{item.index:05d}"
    if len(item.scenes) == 1:
        return [f"{stem}.png"]
    return [f"{stem}-{k + 1}.png" for k in range(len(item.scenes))]


def save(item: Item, folder: Path) -> list[str]:
    """Write the pictures; their relative paths."""
    paths = names(item)
    for path, image in zip(paths, item.images(), strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / path)
    return paths
