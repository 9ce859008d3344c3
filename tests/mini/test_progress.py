"""The progress bar of long loops."""

from foveate.mini.progress import bar


def test_progress_goes_to_standard_error(capsys):
    with bar("training", 3) as tick:
        tick(3)
    shown = capsys.readouterr()
    assert "training" in shown.err and shown.out == ""
