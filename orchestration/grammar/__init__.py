"""What a sweep file may say, and the cells that it becomes."""
