"""Conversations: sessions of the agents SDK in the database, and the histories that they hold."""
