"""Telling people something while they are not looking: an outbox that loses nothing, and the ways out of it."""
