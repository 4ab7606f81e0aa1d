"""Moving a guest, and seeing all of it: schemes, the hand-off, the timeline, the experiment."""
