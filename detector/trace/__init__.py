"""What a detector did with one image, stage by stage: recorded (tracing.py), and as a page (page.py)."""
