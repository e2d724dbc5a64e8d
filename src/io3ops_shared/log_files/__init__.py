"""Reading files of lines that another process writes and renames."""
