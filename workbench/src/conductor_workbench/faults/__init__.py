"""What breaks things on purpose, and tells whether every answer was still right. Tests and long runs use it."""
