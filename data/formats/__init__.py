"""Label formats on disk, one file per format with its reader and writer."""
