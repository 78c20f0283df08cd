"""The admin: activities, their actions, and the live dashboard."""
