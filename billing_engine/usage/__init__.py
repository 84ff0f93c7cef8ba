"""Metered usage of companies (SPEC 9): priced, taken from one wallet, shown at once."""
