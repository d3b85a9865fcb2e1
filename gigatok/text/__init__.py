"""Text that is safe to show: Markdown without links, secrets masked, URLs without logins."""
