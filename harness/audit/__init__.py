"""What each way to stop a VF really does: to its COMMAND register, its frames, its memory."""
