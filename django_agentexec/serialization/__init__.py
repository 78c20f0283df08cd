"""Values that survive as JSON: `roundtrip` stores a form that loads as the same value, `comparison` compares them."""
