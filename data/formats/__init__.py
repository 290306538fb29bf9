"""One file per label format on disk; each holds the reader and its writer."""
