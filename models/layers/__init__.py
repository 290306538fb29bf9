"""Layer types, one file each; models/catalog.py lists them all."""
