"""Writes results for people and programs: terminal, Markdown, HTML page, JSON; without pytest and torch."""
