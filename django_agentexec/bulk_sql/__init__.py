"""Many rows in one statement: `postgres` for PostgreSQL, `generic` for the other databases."""
