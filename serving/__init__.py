"""What serve.py puts together: a page and an endpoint around a detector."""
