"""Model families, one file each. Files of this folder are found automatically."""

from foveate.families.base import Family, families, family_of

__all__ = ["Family", "families", "family_of"]
