"""What every command shares: its frame (run.py) and how its words are read (arguments.py)."""
