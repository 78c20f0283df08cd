"""What the management commands share: filters, text for terminals, and one module per verb of `manage.py agents`."""
