"""Training data: datasets, prompt sampling, clips, augmentation and the ultrasound simulator."""
