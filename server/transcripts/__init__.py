"""A consultation as a document for its two parties: what was said, and what was paid for."""
