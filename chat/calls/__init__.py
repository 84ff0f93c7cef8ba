"""Calls: who rings whom in a session, which device answers, and what those two devices tell each other to find a way for the media."""
