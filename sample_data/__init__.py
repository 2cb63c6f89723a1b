"""Sample loops with their licences; installed as `napari_uniultra.sample_data`."""
