"""Flows of numbered frames: what they are, starting them, and fetching what they left behind."""
