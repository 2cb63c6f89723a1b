"""From prompts to masks: one frame, then a whole loop."""
