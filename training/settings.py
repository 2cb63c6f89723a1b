"""The old place of `napari_uniultra.core.settings`."""

from napari_uniultra.core.settings import ConfigError, read_file, read_settings, setting, to_dict

__all__ = ["ConfigError", "read_file", "read_settings", "setting", "to_dict"]
