"""The small model of the benchmark tests."""

from tests.benchmarks.conftest import folder, pair

__all__ = ["folder", "pair"]
