"""Situation reports: every event in one ordered log, counted the same way by everybody, and streamed."""
