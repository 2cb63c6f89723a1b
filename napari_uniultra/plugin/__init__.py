"""What napari asks of us: reader, writer, sample data, layers and the controller. No widgets."""
