"""Websockets on Channels: consumers, commands, authentication and system checks."""
