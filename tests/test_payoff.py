"""The README table "when does it pay" is made from stored measurements."""

import json

from docs import payoff
from docs.markers import insert


def test_the_table_has_a_row_per_setting_and_group_with_measured_numbers():
    lines = payoff.table().split("\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line][2:]
    settings = [(row[0], row[1]) for row in rows]
    assert settings == [
        ("LLaVA-1.5-7B, H200", "1 × 576 visual tokens"),
        ("LLaVA-1.5-7B, H200", "1 × 576 visual tokens"),
        ("LLaVA-1.5-7B, H200", "16 × 576 visual tokens"),
        ("LLaVA-1.5-7B, H200", "16 × 576 visual tokens"),
        ("Qwen2-0.5B, H200", "1 × 576 visual tokens"),
        ("Qwen2-0.5B, H200", "1 × 576 visual tokens"),
        ("Qwen2-0.5B, H200", "16 × 576 visual tokens"),
        ("Qwen2-0.5B, H200", "16 × 576 visual tokens"),
        ("LLaVA-1.5-7B, H200", "1 × 4,608 visual tokens"),
        ("Qwen2-0.5B, CPU", "1 × 576 visual tokens"),
        ("Qwen2-0.5B, CPU", "1 × 576 visual tokens"),
    ]
    result = json.loads((payoff.RESULTS / "cuda.json").read_text())
    (batch,) = [s for s in result["prefill"] if "7B" in s["shape"] and s["batch"] == 16]
    measured = [batch["methods"][m]["measured_speedup"] for m in payoff.GROUPS[payoff.BEFORE]]
    assert rows[2][4] == f"{min(measured):.1f} – {max(measured):.1f}×"
    assert f"gain {rows[2][4]} in prefill" in lines[0]
    stages = ("encode", "select", "prefill")
    full = sum(batch["bare_seconds"][s] for s in stages) / batch["keep_all_over_bare"]
    divprune = full / sum(batch["methods"]["divprune"]["seconds"][s] for s in stages)
    low, high = (float(end.rstrip("×")) for end in rows[2][5].split(" – "))
    assert low - 0.05 <= divprune <= high + 0.05
    assert f"gets worse, {rows[0][5]}" in lines[0] and float(rows[0][5].split(" – ")[0]) < 1


def test_the_table_goes_between_the_markers_and_nowhere_else():
    begin, end, table = "<!-- payoff: make docs -->", "<!-- end of payoff -->", payoff.table()
    page = f"above\n{begin}\nold\n{end}\nbelow\n"
    made = insert(page, "payoff", table)
    assert made == f"above\n{begin}\n{table}\n{end}\nbelow\n"
    assert insert(made, "payoff", table) == made
    assert insert("no markers\n", "payoff", table) == "no markers\n"
