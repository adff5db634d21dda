"""What people read: the grid in the terminal, Markdown, a page, and JSON. Neither pytest nor torch."""
