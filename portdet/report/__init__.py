"""What a run leaves to look at: tables, pictures, the alignment page, progress."""
