"""Websockets on Channels: consumers, commands, authentication and origin."""
