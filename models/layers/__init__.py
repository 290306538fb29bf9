"""Layer types, one file per type or family; models/catalog.py lists them all."""
