"""The ground floor of outputs: files and folders that are written whole or not at all. Standard library only."""

from gatewise.files.atomic import NewFolder, check_new_file, check_new_folder, new_folder, write_file

__all__ = ["NewFolder", "check_new_file", "check_new_folder", "new_folder", "write_file"]
