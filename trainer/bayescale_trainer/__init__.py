"""Train ladders of small transformers whose final losses are valid scaling data."""
