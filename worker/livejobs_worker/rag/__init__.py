"""Documents made searchable: parse → split → index."""
