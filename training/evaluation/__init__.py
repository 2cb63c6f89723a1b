"""How well a model, or any other tool, segments and tracks, beside an ellipse drawn into the same box."""
