"""Agents that read the documents in `library/`: company research and contract review."""
