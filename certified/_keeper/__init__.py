"""What every fitted model is: it takes turns, is copied and saved with care, has a key, and states frozen records."""
