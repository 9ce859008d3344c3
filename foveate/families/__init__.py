"""Model families, one file each. Files of this folder are found automatically."""
