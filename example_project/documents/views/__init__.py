"""The pages: sign in, all runs with the form that starts one, and one run. What moves on them is JavaScript's."""
