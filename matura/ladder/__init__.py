"""What a user runs: recipe, plan, climb, transcript."""
