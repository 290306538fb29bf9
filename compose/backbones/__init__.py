"""Feature extractors, one family to a file. Each is a function from an empty Net to its Features."""
