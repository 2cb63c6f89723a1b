"""From prompts to masks to tracked loops."""
