"""What happens to activities, told to whoever watches: event shapes, publishing, following."""
