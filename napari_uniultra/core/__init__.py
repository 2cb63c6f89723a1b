"""Plain data and arithmetic: loops, prompts, masks, metrics and measurements. No torch, no napari."""
