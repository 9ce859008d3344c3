"""Model families: one short file each, found by being here."""

from foveate.families.base import Family, families, family_of

__all__ = ["Family", "families", "family_of"]
