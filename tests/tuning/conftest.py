"""The thin model of the bench's tests."""

from tests.benchmarks.conftest import folder, pair

__all__ = ["folder", "pair"]
