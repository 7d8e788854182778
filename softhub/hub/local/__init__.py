"""The local hub: one directory of plain files, with an index that can be deleted."""
