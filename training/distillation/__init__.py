"""Distillation of a large encoder into a small one (DSKD; UniUltra, Eq. 4)."""
