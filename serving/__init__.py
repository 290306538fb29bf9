"""The web page and JSON endpoint of serve.py."""
