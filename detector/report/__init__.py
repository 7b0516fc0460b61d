"""What is shown of an evaluation: text, a page, pictures."""
