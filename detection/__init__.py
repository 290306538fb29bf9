"""What detect.py assembles: detecting and naming, over any source of pictures."""
