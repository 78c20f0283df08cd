"""The pages: sign in, all runs with the form that starts one, and one run. JavaScript keeps them up to date."""
